//! The tie between the thread that makes a trunk and the worker that carries it: renewal, and the end.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::oneshot;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use super::maintainer::TrunkSlot;
use super::{GREATEST_AGE, LEFT_FOR};
use crate::certs::identity::Identity;
use otproxy_net::{Trunk, random_part};

/// The interval at which a trunk that takes no more streams is looked at for whether it has any left.
const LOOK: Duration = Duration::from_secs(1);

/// The worker's end of the tie.
#[derive(Debug)]
pub(super) struct TrunkTether {
    /// Cancelled when the trunk is to take no more streams, by whichever side.
    leave: CancellationToken,
    /// Cancelled when it is to end.
    cut: CancellationToken,
    /// Dropped with the trunk.
    _ended: oneshot::Sender<()>,
}

impl TrunkTether {
    /// Returns what has the trunk take no more streams.
    pub fn leaving(&self) -> CancellationToken {
        self.leave.clone()
    }

    /// Takes note that the other side wants no more streams on the trunk.
    pub fn gone_away(&self) {
        self.leave.cancel();
    }

    /// Has the trunk take no more streams, and end, when that is wanted. `opens` is true on the side that opens streams, which alone
    /// knows that none is on its way: it ends a trunk as soon as that has none left. Then its `place` is for another one. Never returns.
    pub async fn steer<T>(&self, trunk: &Trunk, opens: bool, place: impl Sized) -> T {
        let leaving = async {
            self.leave.cancelled().await;
            drop(place);
            trunk.go_away();
            let mut looks = interval(LOOK);
            let unused = async {
                while !opens || trunk.streams() > 0 {
                    looks.tick().await;
                }
            };
            tokio::select! {
                () = unused => {}
                () = sleep(LEFT_FOR) => {}
            }
        };
        tokio::select! {
            () = leaving => {}
            () = self.cut.cancelled() => {}
        }
        trunk.close();
        std::future::pending().await
    }
}

/// A trunk that a worker carries, as the thread that made it knows it.
#[derive(Debug)]
pub(super) struct HeldTrunk {
    /// The name and the certificates by which the other side has proved itself.
    name: String,
    chain: Vec<CertificateDer<'static>>,
    leave: CancellationToken,
    cut: CancellationToken,
}

/// The trunks of one end of the tunnel.
#[derive(Debug, Default)]
pub(super) struct HeldTrunks(RefCell<Vec<Weak<HeldTrunk>>>);

impl HeldTrunks {
    /// Holds a trunk with the other side of this name, as long as the first of the returned lives; the others are the end of its
    /// tie, and the signal of its end.
    pub fn hold(
        &self,
        name: &str,
        chain: Vec<CertificateDer<'static>>,
    ) -> (Rc<HeldTrunk>, TrunkTether, oneshot::Receiver<()>) {
        let (leave, cut) = (CancellationToken::new(), CancellationToken::new());
        let (ended, end) = oneshot::channel();
        let held = Rc::new(HeldTrunk { name: name.to_owned(), chain, leave: leave.clone(), cut: cut.clone() });
        let mut all = self.0.borrow_mut();
        all.retain(|held| held.strong_count() > 0);
        all.push(Rc::downgrade(&held));
        (held, TrunkTether { leave, cut, _ended: ended }, end)
    }

    /// Has all trunks made anew, with `identity`. A trunk whose other side it does not trust any more ends at once.
    pub fn renew(&self, identity: &Identity) {
        for held in self.living() {
            if identity.trusts(&held.name, &held.chain) { held.leave.cancel() } else { held.cut.cancel() }
        }
    }

    /// Has all trunks made anew, or those with the other side of this name.
    pub fn leave(&self, name: Option<&str>) {
        let named = |held: &Rc<HeldTrunk>| name.is_none_or(|name| held.name == name);
        self.living().into_iter().filter(named).for_each(|held| held.leave.cancel());
    }

    fn living(&self) -> Vec<Rc<HeldTrunk>> {
        self.0.borrow().iter().filter_map(Weak::upgrade).collect()
    }
}

impl HeldTrunk {
    /// Waits for the end of the trunk. Its slot, if this side made it, and its `place` are free as soon as another one is to take
    /// them: when it takes no more streams, which is so after [`GREATEST_AGE`] at the latest.
    pub async fn keep(&self, slot: Option<TrunkSlot>, place: impl Sized, mut end: oneshot::Receiver<()>) {
        // Not all at one moment, because they were made at one.
        let age = GREATEST_AGE.mul_f64(1.0 - random_part() / 2.0);
        tokio::select! {
            _ = &mut end => return,
            () = self.leave.cancelled() => {}
            () = sleep(age) => self.leave.cancel(),
        }
        drop(place);
        slot.into_iter().for_each(TrunkSlot::leave);
        let _ = end.await;
    }
}
