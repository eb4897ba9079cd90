//! The memory of a journal: a file without a name, mapped in segments.

use std::fs::File;
use std::io;
use std::sync::atomic::{Ordering, compiler_fence};

use memmap2::{MmapMut, MmapOptions};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, memfd_create};

use crate::layout::{BLOCK, BUFFER, MAX_SEGMENTS, SEGMENT};

/// A segment: mapped, or in tests of the logic on the heap.
enum Segment {
    Mapped(MmapMut),
    #[cfg(test)]
    Heap(Vec<u8>),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            #[cfg(test)]
            Self::Heap(bytes) => bytes,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Mapped(map) => map,
            #[cfg(test)]
            Self::Heap(bytes) => bytes,
        }
    }
}

/// Blocks of bytes that stay when the process is killed, as long as another one has the file.
pub(crate) struct Memory {
    /// `None` in tests of the logic, whose segments are on the heap.
    file: Option<File>,
    segments: Vec<Segment>,
    segment_blocks: u32,
    max_segments: usize,
    #[cfg(test)]
    pub trace: Option<Vec<crate::tests::Store>>,
}

impl Memory {
    /// Returns a memory with one segment.
    pub fn create() -> io::Result<Self> {
        let file = File::from(memfd_create("otproxy-journal", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        // None of those who keep it can make it shorter, or seal it against what is to come.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL)?;
        let mut memory = Self {
            file: Some(file),
            segments: Vec::new(),
            segment_blocks: (SEGMENT / BLOCK) as u32,
            max_segments: MAX_SEGMENTS,
            #[cfg(test)]
            trace: None,
        };
        memory.grow()?;
        Ok(memory)
    }

    /// Returns a memory on the heap, with so many blocks in a segment.
    #[cfg(test)]
    pub fn on_heap(segment_blocks: u32) -> Self {
        let segments = Vec::new();
        let mut memory = Self { file: None, segments, segment_blocks, max_segments: MAX_SEGMENTS, trace: None };
        memory.grow().expect("memory");
        memory
    }

    /// Has it take no more segments than these.
    #[cfg(test)]
    pub fn limit(&mut self, segments: usize) {
        self.max_segments = segments;
    }

    /// Returns the bytes of all segments.
    #[cfg(test)]
    pub fn image(&self) -> Vec<u8> {
        self.segments.iter().map(Segment::bytes).collect::<Vec<_>>().concat()
    }

    pub fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Returns the number of its blocks.
    pub fn blocks(&self) -> u32 {
        // No more than MAX_SEGMENTS of them.
        self.segments.len() as u32 * self.segment_blocks
    }

    /// Takes one more segment, whose bytes are all 0. Returns its blocks.
    pub fn grow(&mut self) -> io::Result<std::ops::Range<u32>> {
        if self.segments.len() >= self.max_segments {
            return Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                "the journal has all the segments that it may have",
            ));
        }
        let first = self.blocks();
        let len = self.segment_blocks as usize * BLOCK;
        let segment = match &self.file {
            Some(file) => Segment::Mapped(map_more(file, u64::from(first) * BLOCK as u64, len)?),
            #[cfg(test)]
            None => Segment::Heap(vec![0; len]),
            #[cfg(not(test))]
            None => return Err(io::ErrorKind::Unsupported.into()),
        };
        self.segments.push(segment);
        #[cfg(test)]
        if let Some(trace) = &mut self.trace {
            trace.push(crate::tests::Store::Grow(len));
        }
        Ok(first..self.blocks())
    }

    /// Stores bytes into a block.
    ///
    /// A process that is killed may have stored any part of them.
    pub fn store(&mut self, block: u32, offset: usize, bytes: &[u8]) {
        #[expect(
            clippy::indexing_slicing,
            reason = "all blocks are those that `grow` returned, and positions within one are constants of the layout or \
                      bounded by BLOCK_DATA"
        )]
        self.block(block)[offset..offset + bytes.len()].copy_from_slice(bytes);
        #[cfg(test)]
        if let Some(trace) = &mut self.trace {
            trace.push(crate::tests::Store::Bytes { at: block as usize * BLOCK + offset, bytes: bytes.to_vec() });
        }
    }

    /// Stores one byte, after all stores so far and before all to come.
    ///
    /// A reader of the file that comes after this process was killed finds each store that the process executed: the
    /// pages are the file's own, and the processor completes in order what it has begun. So the order of stores in the
    /// program is what counts, and only the compiler could change it; the fences forbid it to. One byte is stored whole
    /// or not at all.
    pub fn publish(&mut self, block: u32, offset: usize, byte: u8) {
        compiler_fence(Ordering::SeqCst);
        self.store(block, offset, &[byte]);
        compiler_fence(Ordering::SeqCst);
    }

    fn block(&mut self, block: u32) -> &mut [u8] {
        let start = (block % self.segment_blocks) as usize * BLOCK;
        #[expect(clippy::indexing_slicing, reason = "all blocks are those that `grow` returned")]
        &mut self.segments[(block / self.segment_blocks) as usize].bytes_mut()[start..start + BLOCK]
    }

    /// Returns the read buffer.
    pub fn buffer(&self) -> &[u8] {
        self.segments.first().and_then(|first| first.bytes().get(BUFFER)).unwrap_or_default()
    }

    /// Returns the read buffer, to read into.
    pub fn buffer_mut(&mut self) -> &mut [u8] {
        self.segments.first_mut().and_then(|first| first.bytes_mut().get_mut(BUFFER)).unwrap_or_default()
    }
}

/// Makes the file longer by `len` bytes from `offset` on, which is its end, and maps these.
fn map_more(file: &File, offset: u64, len: usize) -> io::Result<MmapMut> {
    // The pages are there before anything is stored in them: a host that has none left says so here, where it is an
    // error, and not by a signal at the store.
    rustix::io::retry_on_intr(|| fallocate(file, FallocateFlags::empty(), offset, len as u64))?;
    #[expect(
        unsafe_code,
        reason = "a mapping is sound as long as nobody else changes its bytes or makes the file shorter. The file has no \
                  name, and was made by this process; those who get its descriptor keep it, and read it when this \
                  process is gone. It is sealed against shrinking, and its pages are allocated, so that no access ends \
                  in SIGBUS"
    )]
    unsafe {
        MmapOptions::new().offset(offset).len(len).populate().map_mut(file)
    }
}
