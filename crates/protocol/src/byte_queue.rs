//! Bytes that wait.

/// Bytes that wait, taken from the front in parts. Empty, it holds no memory.
#[derive(Debug, Default)]
pub struct ByteQueue {
    bytes: Vec<u8>,
    gone: usize,
}

impl ByteQueue {
    /// Returns the bytes that wait.
    pub fn rest(&self) -> &[u8] {
        self.bytes.get(self.gone..).unwrap_or_default()
    }

    /// Returns whether none wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.gone)
    }

    /// Returns the bytes of memory that it holds.
    pub fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        // Else a queue that is never empty would keep all that ever waited in it.
        if self.gone > self.len() {
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes `count` bytes off the front.
    pub fn take(&mut self, count: usize) {
        self.gone += count;
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Moves as many bytes as fit from the front into `buffer`; returns how many.
    pub fn take_into(&mut self, buffer: &mut [u8]) -> usize {
        let waiting = self.rest();
        let count = waiting.len().min(buffer.len());
        if let (Some(buffer), Some(front)) = (buffer.get_mut(..count), waiting.get(..count)) {
            buffer.copy_from_slice(front);
        }
        self.take(count);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_comes_out_in_its_order_and_no_memory_is_left() {
        let (mut queue, mut out, mut pushed) = (ByteQueue::default(), Vec::new(), 0);
        for round in 0..1000_usize {
            for _ in 0..round % 7 {
                queue.push(&[pushed as u8]);
                pushed += 1;
            }
            let mut part = vec![0; round % 5];
            let count = queue.take_into(&mut part);
            out.extend_from_slice(&part[..count]);
            assert!(queue.memory() <= 4 * (queue.len() + 16), "{} for {}", queue.memory(), queue.len());
        }
        out.extend_from_slice(queue.rest());
        queue.take(queue.len());
        assert!(out.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        assert_eq!((out.len(), queue.memory()), (pushed, 0));
    }
}
