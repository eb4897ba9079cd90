//! The task that tells owners.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::message::{Composed, Sender, compose};
use super::post::{AlertFailure, PostAnswer, PostError, post};
use super::queue::{AlertQueue, Batch};
use super::told::ToldEvents;
use crate::events::{EVENTS_KEPT, EventLog};
use crate::metrics::{ByReason, Metrics};
use otproxy_config::{AlertsConfig, WebhookConfig};
use otproxy_net::OutageLog;

/// The settings of alerts, and each change of them.
pub type AlertSettings = watch::Receiver<Option<AlertsConfig>>;

type Posting = Pin<Box<dyn Future<Output = Result<PostAnswer, PostError>> + Send>>;

/// Tells owners of what is in the log from its begin, until dropped. Whatever the other side does, nothing waits for it.
pub async fn keep(settings: AlertSettings, events: Arc<EventLog>, sender: Sender, metrics: Arc<Metrics>) {
    keep_by(settings, events, sender, metrics, |webhook, message| Box::pin(post(webhook, message))).await;
}

async fn keep_by(
    mut settings: AlertSettings,
    events: Arc<EventLog>,
    sender: Sender,
    metrics: Arc<Metrics>,
    post: impl Fn(WebhookConfig, String) -> Posting,
) {
    let failures = ByReason::<AlertFailure>::new(&metrics.alerts_failed, &[]);
    let outages = OutageLog::<AlertFailure>::default();
    let (mut sieve, mut queue) = (ToldEvents::default(), AlertQueue::default());
    let (mut newest, mut after) = (events.newest(), 0);
    newest.mark_changed();
    let mut posting: Option<(Posting, Batch)> = None;
    loop {
        let config = settings.borrow_and_update().clone();
        let due = if posting.is_none() && config.is_some() { queue.due() } else { None };
        tokio::select! {
            // It does not fail: the log is held here.
            Ok(()) = newest.changed() => {
                let new = events.after(after, EVENTS_KEPT);
                if let Some(first) = new.first() && after > 0 && config.is_some() {
                    queue.leave_out(first.serial.saturating_sub(after + 1));
                }
                for event in new {
                    after = event.serial;
                    if sieve.tells(&event.what) && config.is_some() {
                        queue.push(event, Instant::now());
                    }
                }
            }
            changed = settings.changed() => {
                if changed.is_err() {
                    return;
                }
                queue.elsewhere();
                if settings.borrow().is_none() {
                    queue.take();
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let Some(AlertsConfig { webhook, format }) = config else { continue };
                let Composed { body, told, rest } = compose(format, &sender, queue.take());
                queue.put_back(Batch { events: rest, left_out: 0 }, Instant::now());
                posting = Some((post(webhook, body), told));
            }
            result = ended(&mut posting) => {
                let batch = posting.take().map(|(_, batch)| batch).unwrap_or_default();
                let now = Instant::now();
                match result {
                    Ok(_) => {
                        metrics.alerts_sent.inc();
                        queue.done(now);
                        if let Some(seconds) = outages.worked(now.into_std()) {
                            info!(seconds, "alerts arrive again");
                        }
                    }
                    Err(error) => {
                        let reason = error.reason();
                        failures.inc(reason);
                        let lost = reason == AlertFailure::Refused;
                        if let Some(suppressed) = outages.failed(reason, now.into_std()) {
                            if lost {
                                warn!(%error, suppressed, "an alert was not taken and is given up: `otproxy alert test` tries the webhook");
                            } else {
                                warn!(%error, suppressed, "an alert did not arrive and is tried again");
                            }
                        }
                        if lost {
                            queue.leave_out(batch.left_out + batch.events.len() as u64);
                            queue.done(now);
                        } else {
                            queue.failed(error.retry_after(), now);
                            queue.put_back(batch, now);
                        }
                        if config.is_none() {
                            queue.take();
                        }
                    }
                }
            }
        }
    }
}

/// Waits for the end of what is being sent.
async fn ended(posting: &mut Option<(Posting, Batch)>) -> Result<PostAnswer, PostError> {
    match posting {
        Some((posting, _)) => posting.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::{Duration, SystemTime};

    use parking_lot::Mutex;
    use serde_json::Value;
    use tokio::task::JoinHandle;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::alerts::{EVERY, GATHERED, MAX_WAITING};
    use crate::events::Happening;
    use otproxy_config::{AlertFormat, RoleKind};

    const SECOND: Duration = Duration::from_secs(1);

    /// A stand-in for the other side, by an injected clock.
    struct Chat {
        settings: watch::Sender<Option<AlertsConfig>>,
        events: Arc<EventLog>,
        metrics: Arc<Metrics>,
        start: Instant,
        /// Messages that were tried, with their times in s.
        tried: Arc<Mutex<Vec<(u64, Value)>>>,
        answers: Arc<Mutex<VecDeque<Result<(), u16>>>>,
        _task: JoinHandle<()>,
    }

    impl Chat {
        /// Makes one that answers so, and takes all messages after that. A status of 0 is no answer at all.
        fn new(answers: impl IntoIterator<Item = Result<(), u16>>) -> Self {
            let (metrics, events) = (Arc::new(Metrics::new()), Arc::new(EventLog::new(SystemTime::UNIX_EPOCH)));
            let webhook = WebhookConfig { url_file: "/none".into(), ca: None };
            let settings = watch::Sender::new(Some(AlertsConfig { webhook, format: AlertFormat::Json }));
            let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
            let (tried, start) = (Arc::<Mutex<Vec<_>>>::default(), Instant::now());
            let (seen, given) = (Arc::clone(&tried), Arc::clone(&answers));
            let post = move |_, message: String| -> Posting {
                seen.lock().push((start.elapsed().as_secs(), serde_json::from_str(&message).unwrap()));
                let answer = given.lock().pop_front().unwrap_or(Ok(()));
                Box::pin(async move {
                    match answer {
                        Ok(()) => Ok(PostAnswer { status: 204, told: String::new() }),
                        Err(0) => {
                            sleep(100 * SECOND).await;
                            Err(PostError::Late)
                        }
                        Err(status) => {
                            let retry_after = (status == 429).then_some(7 * SECOND);
                            Err(PostError::Status { status, told: String::new(), retry_after })
                        }
                    }
                })
            };
            let sender = Sender { name: "a".to_owned(), role: RoleKind::Core };
            let task = keep_by(settings.subscribe(), Arc::clone(&events), sender, Arc::clone(&metrics), post);
            let _task = tokio::spawn(task);
            Self { settings, events, metrics, start, tried, answers, _task }
        }

        /// Lets something happen, each time in a window of the log of its own.
        fn happens(&self, tasks: u64) {
            let window = otproxy_net::LOG_WINDOW * u32::try_from(tasks).unwrap();
            self.events.emit_at(
                Happening::Defect { tasks },
                std::time::Instant::now() + window,
                SystemTime::UNIX_EPOCH,
            );
        }

        /// Returns when messages were tried, with the numbers in their events, and how many were left out.
        fn tried(&self) -> Vec<(u64, Vec<u64>, u64)> {
            let told = |(at, message): &(u64, Value)| {
                let events = message["events"].as_array().unwrap();
                let numbers = events.iter().map(|event| event["count"].as_u64().unwrap()).collect();
                (*at, numbers, message["left_out"].as_u64().unwrap())
            };
            self.tried.lock().iter().map(told).collect()
        }

        /// Returns the messages that arrived, and the failures of a reason.
        fn counted(&self, reason: AlertFailure) -> (u64, u64) {
            let failed = self.metrics.alerts_failed.with_label_values(&[reason.as_str()]);
            (self.metrics.alerts_sent.get(), failed.get())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_gathered_and_messages_have_their_pace() {
        let chat = Chat::new([]);
        chat.happens(1);
        chat.happens(2);
        sleep(3 * SECOND).await;
        assert_eq!(chat.tried(), [(GATHERED.as_secs(), vec![1, 2], 0)]);
        chat.happens(3);
        sleep(SECOND).await;
        chat.happens(4);
        sleep(30 * SECOND).await;
        let second = (GATHERED + EVERY).as_secs();
        assert_eq!(chat.tried()[1..], [(second, vec![3, 4], 0)]);
        assert_eq!(chat.counted(AlertFailure::Server), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn faults_of_the_other_side_are_waited_out() {
        let chat = Chat::new([Err(500), Err(503), Err(429), Ok(())]);
        chat.happens(1);
        sleep(4 * SECOND).await;
        chat.happens(2);
        sleep(600 * SECOND).await;
        // Twice as long each time, and as long as it asks.
        let all = [(2, vec![1], 0), (3, vec![1], 0), (5, vec![1, 2], 0), (12, vec![1, 2], 0)];
        assert_eq!(chat.tried(), all);
        assert_eq!((chat.counted(AlertFailure::Server), chat.counted(AlertFailure::Busy)), ((1, 2), (1, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_webhook_that_is_gone_is_not_asked_again_for_the_same() {
        let chat = Chat::new([Err(404), Ok(())]);
        chat.happens(1);
        sleep(600 * SECOND).await;
        assert_eq!(chat.tried(), [(2, vec![1], 0)]);
        chat.happens(2);
        sleep(600 * SECOND).await;
        assert_eq!(chat.tried()[1..], [(602, vec![2], 1)], "the one that was lost is counted");
        assert_eq!(chat.counted(AlertFailure::Refused), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_holds_nothing_up_and_the_oldest_go() {
        let chat = Chat::new([Err(0)]);
        chat.happens(1);
        sleep(3 * SECOND).await;
        for tasks in 2..=100 {
            chat.happens(tasks);
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(chat.tried().len(), 1, "it waits, and the log goes on");
        sleep(600 * SECOND).await;
        let tried = chat.tried();
        let (_, told, left_out) = &tried[1];
        assert_eq!(told.first(), Some(&37), "the newest {MAX_WAITING} wait");
        assert_eq!(*left_out, 36);
        let all: Vec<u64> = tried[1..].iter().flat_map(|(_, told, _)| told.clone()).collect();
        assert_eq!(all, (37..=100).collect::<Vec<_>>());
        assert_eq!(chat.counted(AlertFailure::Timeout), (tried.len() as u64 - 1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn another_webhook_is_tried_at_once_and_without_one_nothing_is() {
        let chat = Chat::new([Err(500), Err(500), Err(500), Err(500), Err(500), Ok(())]);
        chat.happens(1);
        advance(20 * SECOND).await;
        sleep(20 * SECOND).await;
        let before = chat.tried().len();
        chat.settings.send_modify(|alerts| alerts.as_mut().unwrap().format = AlertFormat::Json);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(chat.tried().len(), before + 1);
        let alerts = chat.settings.send_replace(None);
        sleep(Duration::from_millis(1)).await;
        chat.answers.lock().clear();
        chat.happens(2);
        sleep(600 * SECOND).await;
        assert_eq!(chat.tried().len(), before + 1);
        chat.settings.send_replace(alerts);
        sleep(600 * SECOND).await;
        assert_eq!(chat.tried().len(), before + 1, "old ones are not told later");
        chat.happens(3);
        sleep(600 * SECOND).await;
        assert_eq!(chat.tried().last().unwrap().1, [3]);
        assert!(chat.start.elapsed() > SECOND);
    }
}
