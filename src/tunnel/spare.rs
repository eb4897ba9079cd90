//! A spare connection, as an edge keeps it.

use tokio::time::{sleep, timeout};

use super::keeper::Place;
use super::pool::{Pool, Request};
use super::{ANSWER, HEARTBEAT};
use crate::net::Stream;
use crate::net::worker::Scratch;
use crate::wire::proxy_header::LOCAL;

/// Offers `stream` in `pool` until it is taken or ends, and asks the core on it from time to time. Where this side made it,
/// `place` is its place. Gives whether it was taken.
pub(super) async fn keep(mut stream: Stream, pool: &Pool, mut place: Option<Place>, scratch: &Scratch) -> bool {
    // The first answer tells that the core knows this edge: its word in the handshake came after this side's own.
    let mut kept = None;
    while answers(&stream, scratch).await {
        kept.get_or_insert_with(|| pool.keep());
        place.iter_mut().for_each(Place::keep);
        match offer(stream, pool, scratch).await {
            Offered::Taken => {
                if let Some(place) = place {
                    place.take();
                }
                return true;
            }
            Offered::Left(left) => stream = left,
            Offered::Ended => return false,
        }
    }
    false
}

enum Offered {
    /// Somebody has it.
    Taken,
    /// Nobody wanted it for [`HEARTBEAT`].
    Left(Stream),
    /// The core has ended it.
    Ended,
}

async fn offer(stream: Stream, pool: &Pool, scratch: &Scratch) -> Offered {
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
    // Who took it in this moment gets it still, and nobody later.
    taken.close();
    match taken.try_recv() {
        Ok(request) => give(stream, request),
        Err(_) => Offered::Left(stream),
    }
}

fn give(stream: Stream, request: Request) -> Offered {
    let Ok(detached) = stream.detach() else { return Offered::Ended };
    match request.send(Ok(detached)) {
        Ok(()) => Offered::Taken,
        // Who asked has gone in the meantime.
        Err(Ok(detached)) => detached.attach().map_or(Offered::Ended, Offered::Left),
        Err(Err(_)) => Offered::Ended,
    }
}

/// Asks the core whether it is there; gives whether it says so in time.
async fn answers(stream: &Stream, scratch: &Scratch) -> bool {
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
