//! The body of an answer, a piece at a time: as a whole it would be copied, and the copy would stay until the client has read it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Bytes of a piece.
const PIECE: usize = 64 << 10;

/// A body that is there, and given away in pieces.
pub(super) struct Pieces(Bytes);

impl Pieces {
    /// Makes it of the whole.
    pub fn new(whole: Bytes) -> Self {
        Self(whole)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let len = self.0.len().min(PIECE);
        let piece = self.0.split_to(len);
        Poll::Ready((len > 0).then_some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn the_pieces_are_the_whole() {
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let whole: Bytes = (0..=u8::MAX).cycle().take(len).collect();
            let body = Pieces::new(whole.clone());
            assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(len as u64), len == 0));
            assert_eq!(to_bytes(axum::body::Body::new(body), len).await.unwrap(), whole, "{len}");
        }
    }
}
