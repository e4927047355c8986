//! Large files go to the disk while more of them comes: in the end there is less to be waited for.

use std::os::fd::BorrowedFd;

/// Bytes that go to the disk at once.
const PART_BYTES: u64 = 8 << 20;
/// Smaller files the kernel writes better together with others.
const FILE_BYTES_MIN: u64 = 1 << 20;

/// How much of a file that is being written is on its way to the disk.
#[derive(Debug, Default)]
pub struct Writeback {
    begun: u64,
    written: u64,
}

impl Writeback {
    /// Notes that a file has been written up to an offset.
    ///
    /// # Errors
    /// The disk fails, or is full.
    pub fn written(&mut self, file: BorrowedFd<'_>, to: u64) -> sys::Result<()> {
        self.written = to;
        match self.written - self.begun >= PART_BYTES {
            true => self.begin(file),
            false => Ok(()),
        }
    }

    /// Notes that all of it has been written.
    ///
    /// # Errors
    /// As [`Self::written`].
    pub fn finish(mut self, file: BorrowedFd<'_>) -> sys::Result<()> {
        match self.written >= FILE_BYTES_MIN && self.written > self.begun {
            true => self.begin(file),
            false => Ok(()),
        }
    }

    fn begin(&mut self, file: BorrowedFd<'_>) -> sys::Result<()> {
        sys::writeback::begin(file, self.begun, self.written)?;
        self.begun = self.written;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileExt as _;

    /// When it goes to the disk nobody can tell; that all calls are taken can be seen.
    #[test]
    fn every_part_of_a_file_begins_once() {
        let file = tempfile::tempfile().unwrap();
        let mut writeback = Writeback::default();
        let mut begun = Vec::new();
        for number in 0..5 {
            let part = 3 << 20;
            file.write_all_at(&vec![7; part], number * part as u64)
                .unwrap();
            writeback
                .written(file.as_fd(), (number + 1) * part as u64)
                .unwrap();
            begun.push(writeback.begun >> 20);
        }
        assert_eq!(begun, [0, 0, 9, 9, 9]);
        writeback.finish(file.as_fd()).unwrap();
        Writeback::default().finish(file.as_fd()).unwrap();
    }
}
