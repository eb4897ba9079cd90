//! A spare connection, as an edge keeps it.

use tokio::time::{sleep, timeout};

use super::maintainer::SpareSlot;
use super::pool::{SparePool, SpareRequest};
use super::{ANSWER, HEARTBEAT};
use otproxy_net::Stream;
use otproxy_net::worker::Scratch;
use otproxy_protocol::proxy_header::LOCAL;

/// Offers `stream`, on which the core [has answered](core_answers), in `pool` until it is taken or ends, and asks the
/// core on it from time to time. If this side made it, `slot` is its slot.
pub(super) async fn maintain(mut stream: Stream, pool: &SparePool, mut slot: Option<SpareSlot>, scratch: &Scratch) {
    slot.iter_mut().for_each(SpareSlot::keep);
    let _kept = pool.hold();
    loop {
        match offer(stream, pool, scratch).await {
            Offered::Taken => return slot.into_iter().for_each(SpareSlot::take),
            Offered::Left(left) => stream = left,
            Offered::Ended => return,
        }
        if !core_answers(&stream, scratch).await {
            return;
        }
    }
}

enum Offered {
    /// A request has taken it.
    Taken,
    /// It was not wanted for [`HEARTBEAT`].
    Left(Stream),
    /// The core has ended it.
    Ended,
}

async fn offer(stream: Stream, pool: &SparePool, scratch: &Scratch) -> Offered {
    let mut taken = match pool.offer() {
        Ok(taken) => taken,
        Err(request) => return give(stream, request),
    };
    let mut unasked = Vec::new();
    tokio::select! {
        request = &mut taken => {
            if let Ok(request) = request {
                return give(stream, request);
            }
        }
        // The core says nothing unasked: this is the end of the stream, or nothing that can be trusted.
        _ = stream.read_onto(&mut unasked, 1, scratch) => return Offered::Ended,
        () = sleep(HEARTBEAT) => {}
    }
    // A request that took it at this moment still gets it, and no later one.
    taken.close();
    match taken.try_recv() {
        Ok(request) => give(stream, request),
        Err(_) => Offered::Left(stream),
    }
}

fn give(stream: Stream, request: SpareRequest) -> Offered {
    let Ok(detached) = stream.detach() else { return Offered::Ended };
    match request.send(Ok(detached)) {
        Ok(()) => Offered::Taken,
        // The request was abandoned in the meantime.
        Err(Ok(detached)) => detached.attach().map_or(Offered::Ended, Offered::Left),
        Err(Err(_)) => Offered::Ended,
    }
}

/// Asks the core whether it is there; returns whether it answers in time. The first answer tells that the core knows
/// this edge: its part of the handshake came after this side's own.
pub(super) async fn core_answers(stream: &Stream, scratch: &Scratch) -> bool {
    let asking = async {
        stream.write_all(LOCAL).await.ok()?;
        let mut answer = Vec::new();
        while answer.len() < LOCAL.len() {
            let missing = LOCAL.len() - answer.len();
            if stream.read_onto(&mut answer, missing, scratch).await.ok()? == 0 {
                return None;
            }
        }
        Some(answer == LOCAL)
    };
    timeout(ANSWER, asking).await.ok().flatten().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;

    use super::*;
    use otproxy_net::worker::scratch;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
    }

    /// Makes an edge's end of a connection, and the core's.
    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let core = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Stream::new(listener.accept().await.unwrap().0).unwrap(), core)
    }

    fn pool() -> Arc<SparePool> {
        SparePool::new(Arc::new(Notify::new()))
    }

    async fn asked(core: &mut TcpStream) {
        let mut question = [0; LOCAL.len()];
        core.read_exact(&mut question).await.unwrap();
        assert_eq!(question, *LOCAL);
    }

    /// Returns whether a core that says this, and then ends or not, has answered.
    async fn is_answer(said: &[u8], ends: bool) -> bool {
        let ((stream, mut core), scratch) = (pair().await, scratch());
        let saying = async {
            asked(&mut core).await;
            core.write_all(said).await.unwrap();
            if ends {
                core.shutdown().await.unwrap();
            } else {
                // Nothing more arrives, and the clock jumps.
                tokio::time::pause();
            }
        };
        let (answered, ()) = tokio::join!(core_answers(&stream, &scratch), saying);
        if !ends {
            tokio::time::resume();
        }
        answered
    }

    #[test]
    fn only_the_right_answer_is_one() {
        run(async {
            let wrong = LOCAL.map(|byte| byte ^ 1);
            for (said, ends, answered) in [
                (&LOCAL[..], true, true),
                (&[&LOCAL[..], b"more"].concat(), true, true),
                (&wrong, true, false),
                (&LOCAL[..15], true, false),
                (&LOCAL[..15], false, false),
                (&[], true, false),
                (&[], false, false),
            ] {
                assert_eq!(is_answer(said, ends).await, answered, "{said:?} {ends}");
            }
        });
    }

    #[test]
    fn it_is_asked_again_and_again_and_is_gone_once_the_core_says_nothing() {
        run(async {
            let ((stream, mut core), (pool, scratch)) = (pair().await, (pool(), scratch()));
            let keeping = maintain(stream, &pool, None, &scratch);
            let talking = async {
                for _ in 0..3 {
                    // The clock stands except for this.
                    tokio::time::pause();
                    tokio::time::advance(HEARTBEAT).await;
                    tokio::time::resume();
                    asked(&mut core).await;
                    core.write_all(LOCAL).await.unwrap();
                    while pool.offered() == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                tokio::time::pause();
                tokio::time::advance(HEARTBEAT).await;
                tokio::time::resume();
                asked(&mut core).await;
                tokio::time::pause();
            };
            tokio::join!(keeping, talking);
            assert_eq!(pool.offered(), 0, "nobody gets it");
            assert_eq!(core.read(&mut [0]).await.unwrap(), 0, "it is closed");
        });
    }

    #[test]
    fn it_ends_with_the_core_or_where_that_says_something_unasked() {
        run(async {
            for said in [&b""[..], LOCAL] {
                let ((stream, mut core), (pool, scratch)) = (pair().await, (pool(), scratch()));
                core.write_all(said).await.unwrap();
                core.shutdown().await.unwrap();
                maintain(stream, &pool, None, &scratch).await;
                assert_eq!(pool.offered(), 0);
            }
        });
    }

    #[test]
    fn who_asks_has_it_and_one_that_nobody_took_is_offered_again() {
        run(async {
            let ((stream, mut core), (pool, scratch)) = (pair().await, (pool(), scratch()));
            let taking = async {
                // It is offered already; the first request leaves at once.
                pool.ask_and_leave();
                asked(&mut core).await;
                core.write_all(LOCAL).await.unwrap();
                let taken = pool.take(ANSWER).await.unwrap().attach().unwrap();
                taken.write_all(b"mine").await.unwrap();
                let mut said = [0; 4];
                core.read_exact(&mut said).await.unwrap();
                assert_eq!(said, *b"mine");
            };
            let keeping = maintain(stream, &pool, None, &scratch);
            tokio::join!(keeping, taking);
        });
    }
}
