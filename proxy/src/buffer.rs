//! Bytes on their way: a read buffer that holds memory only while bytes are in it.
//!
//! Blocks come from a last-in-first-out pool of each worker, so that a thousand idle connections hold none and a busy
//! worker keeps touching the same few. At most [`POOLED_BLOCKS_MAX`] blocks are kept, and only while they are needed.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The largest message head we read, and what one read takes where nothing large is expected.
pub(crate) const HEAD_BYTES: usize = 64 * 1024;
/// Size of a block: eight full TLS records and what they add, so that what one large read brought is sent by one write.
const BLOCK_BYTES: usize = 129 * 1024;
/// What one large read takes.
const LARGE_BYTES: usize = 128 * 1024;
/// Blocks one worker keeps for later. Those that it did not need for a while are given back.
const POOLED_BLOCKS_MAX: usize = 1024;

/// Blocks that nobody uses, the last used on top.
struct Pool {
    blocks: Vec<Box<[u8]>>,
    /// The fewest there were since the last [`sweep_pool`].
    fewest: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { blocks: Vec::new(), fewest: 0 }) };
}

/// Gives back this worker's blocks that were not needed since the last time.
pub(crate) fn sweep_pool() {
    POOL.with_borrow_mut(|pool| {
        drop(pool.blocks.drain(..pool.fewest));
        pool.fewest = pool.blocks.len();
    });
}

/// Bytes that were read and not used yet. Dropping it gives its block back.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    block: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// The bytes that were read and not used yet.
    pub(crate) fn data(&self) -> &[u8] {
        self.block
            .as_ref()
            .map_or(&[], |block| &block[self.start..self.end])
    }

    /// The same bytes, to be changed in place.
    pub(crate) fn data_mut(&mut self) -> &mut [u8] {
        self.block
            .as_mut()
            .map_or(&mut [], |block| &mut block[self.start..self.end])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether there is as much as [`Self::fill`] takes.
    pub(crate) fn is_full(&self) -> bool {
        self.end - self.start >= HEAD_BYTES
    }

    /// The first `n` bytes are used. An empty buffer holds no memory.
    pub(crate) fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end, "consumed more than was read");
        if self.start == self.end {
            self.release();
        }
    }

    /// Holds what is there in as little memory as it takes, until there is more.
    pub(crate) fn park(&mut self) {
        let parked: Box<[u8]> = self.data().into();
        let bytes = parked.len();
        self.release();
        if bytes > 0 {
            self.block = Some(parked);
            self.end = bytes;
        }
    }

    /// Room to read into; empty only when the buffer is full.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        if let Some(parked) = self.block.take_if(|block| block.len() < BLOCK_BYTES) {
            let block = self.block.insert(take_block());
            block[..parked.len()].copy_from_slice(&parked);
        }
        let block = self.block.get_or_insert_with(take_block);
        // Move what is there to the front only when little room is left behind it.
        if self.start > 0 && block.len() - self.end < BLOCK_BYTES / 4 {
            block.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut block[self.end..]
    }

    /// `n` bytes were written into the room that [`Self::spare`] gave.
    pub(crate) fn filled(&mut self, n: usize) {
        self.end += n;
        if self.is_empty() {
            self.release();
        }
    }

    fn release(&mut self) {
        self.start = 0;
        self.end = 0;
        if let Some(block) = self.block.take_if(|block| block.len() == BLOCK_BYTES) {
            put_block(block);
        }
        self.block = None;
    }

    /// Reads once, up to a head's size. Zero bytes mean the end of the stream (or a full buffer: ask first).
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        self.poll_fill_to(HEAD_BYTES, cx, from)
    }

    /// Reads once, as much as may come in bulk. Zero bytes mean the end of the stream.
    pub(crate) fn poll_fill_large(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        self.poll_fill_to(LARGE_BYTES, cx, from)
    }

    fn poll_fill_to(
        &mut self,
        most: usize,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        let most = most.saturating_sub(self.end - self.start);
        let room = self.spare();
        let most = most.min(room.len());
        let mut room = ReadBuf::new(&mut room[..most]);
        let outcome = Pin::new(from).poll_read(cx, &mut room);
        let n = room.filled().len();
        self.filled(n);
        outcome.map(|result| result.map(|()| n))
    }

    /// As [`Self::poll_fill`]; dropping the future loses nothing.
    pub(crate) async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, from)).await
    }

    /// As [`Self::poll_fill_large`]; dropping the future loses nothing.
    pub(crate) async fn fill_large(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill_large(cx, from)).await
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

/// Writes everything. Dropping the future leaves a part unwritten: the connection is then of no more use.
pub(crate) async fn write_all(
    to: &mut (impl AsyncWrite + Unpin),
    mut data: &[u8],
) -> io::Result<()> {
    poll_fn(|cx| {
        while !data.is_empty() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, data))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            data = &data[n..];
        }
        Poll::Ready(Ok(()))
    })
    .await
}

fn take_block() -> Box<[u8]> {
    let pooled = POOL.with_borrow_mut(|pool| {
        let block = pool.blocks.pop();
        pool.fewest = pool.fewest.min(pool.blocks.len());
        block
    });
    pooled.unwrap_or_else(|| vec![0; BLOCK_BYTES].into_boxed_slice())
}

fn put_block(block: Box<[u8]>) {
    // A buffer that outlives its thread's pool is simply freed.
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.blocks.len() < POOLED_BLOCKS_MAX {
            pool.blocks.push(block);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_memory_only_while_bytes_are_in_it() {
        let mut buffer = Buffer::default();
        buffer.spare()[..5].copy_from_slice(b"hello");
        buffer.filled(5);
        assert_eq!(buffer.data(), b"hello");
        buffer.consume(4);
        assert!(buffer.block.is_some());
        buffer.consume(1);
        assert!(buffer.block.is_none());
        buffer.spare();
        buffer.filled(0);
        assert!(
            buffer.block.is_none(),
            "a read that brought nothing keeps nothing"
        );
    }

    #[test]
    fn blocks_that_are_not_needed_are_given_back() {
        let pooled = || POOL.with_borrow(|pool| pool.blocks.len());
        let mut buffers: Vec<Buffer> = (0..100).map(|_| Buffer::default()).collect();
        buffers.iter_mut().for_each(|buffer| {
            buffer.spare();
            buffer.filled(1);
        });
        drop(buffers);
        assert_eq!(pooled(), 100);
        sweep_pool();
        let mut one = Buffer::default();
        one.spare();
        one.filled(1);
        sweep_pool();
        assert_eq!(pooled(), 0, "the one that was needed is in use");
        drop(one);
        assert_eq!(pooled(), 1);
    }

    #[test]
    fn what_waits_for_more_is_parked_in_little() {
        let mut buffer = Buffer::default();
        buffer.spare()[..5].copy_from_slice(b"hello");
        buffer.filled(5);
        buffer.consume(1);
        buffer.park();
        assert_eq!(buffer.block.as_ref().map(|block| block.len()), Some(4));
        assert_eq!(buffer.data(), b"ello");
        buffer.consume(1);
        buffer.park();
        buffer.spare()[0] = b'!';
        buffer.filled(1);
        assert_eq!(buffer.data(), b"llo!");
        buffer.consume(4);
        buffer.park();
        assert!(buffer.block.is_none());
        let pooled =
            POOL.with_borrow(|pool| pool.blocks.iter().all(|one| one.len() == BLOCK_BYTES));
        assert!(pooled, "what was parked is no block");
    }

    #[test]
    fn what_is_left_moves_to_the_front_when_room_gets_short() {
        let mut buffer = Buffer::default();
        let n = buffer.spare().len();
        buffer.spare()[n - 3..].copy_from_slice(b"abc");
        buffer.filled(n);
        assert!(buffer.is_full() && buffer.spare().is_empty());
        buffer.consume(n - 3);
        assert_eq!(buffer.spare().len(), BLOCK_BYTES - 3);
        assert_eq!(buffer.data(), b"abc");
    }
}
