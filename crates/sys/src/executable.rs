//! The file that a running program is of, exchanged without an execution: mmap(2), mremap(2), prctl(2) `PR_SET_MM_MAP`.
//!
//! What links a process to a file is the mappings of its segments and the link `/proc/<pid>/exe`. The kernel lets a process
//! change the link as soon as nothing of the old file is mapped any more (kernel/sys.c, `prctl_set_mm_map`); it is there for
//! those who restore checkpoints. The same file by another mount has the same segments, so it can be mapped in their place
//! while they run.

use crate::root::fd_path;
use crate::{Context, Error, Result};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const SELF: &str = "/proc/self/exe";
/// `PR_SET_MM_MAP` of linux/prctl.h.
const PR_SET_MM_MAP: libc::c_int = 14;

/// `struct prctl_mm_map` of linux/prctl.h.
#[repr(C)]
#[derive(Debug, Default)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    /// None: it is kept.
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Makes the running program be of this file, which must be the one it is of already, by another mount: `/proc/self/exe` then
/// leads there, and so do its mappings. `EXDEV` for another file, `EBUSY` in a process of several threads, `EPERM` without
/// `CAP_CHECKPOINT_RESTORE`; the program goes on in any case.
pub fn replace(file: BorrowedFd<'_>) -> Result<()> {
    let path = fd_path(file);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = open(&path, flags, Mode::empty()).call(|| format!("open({path:?})"))?;
    if !is_of(file.as_fd())? {
        return Err(Error::new(format!("{path:?} is not {SELF}"), Errno::XDEV));
    }
    let mut memory = memory_map(&file)?;
    map(&file)?;
    // SAFETY: it moves nothing, and says where the heap ends: where it is to stay, so nothing is allocated from here on.
    memory.brk = unsafe { libc::sbrk(0) }.addr() as u64;
    // SAFETY: the structure has the size that is given, and outlives the call.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            PR_SET_MM_MAP,
            &raw const memory,
            size_of::<MemoryMap>(),
            0,
        )
    };
    crate::process::check(result.into(), || {
        "prctl(PR_SET_MM, PR_SET_MM_MAP)".to_owned()
    })?;
    Ok(())
}

/// Whether the running program is of this file, whatever the mount.
fn is_of(file: BorrowedFd<'_>) -> Result<bool> {
    let own = rustix::fs::stat(SELF).call(|| format!("stat({SELF:?})"))?;
    let given = fstat(file).call(|| "fstat")?;
    Ok((own.st_dev, own.st_ino) == (given.st_dev, given.st_ino))
}

/// Where the kernel believes the parts of this process to be, all but the end of its heap, and the file as its executable.
fn memory_map(file: &OwnedFd) -> Result<MemoryMap> {
    const STAT: &str = "/proc/self/stat";
    let malformed = || Error::new(format!("reading {STAT}"), Errno::INVAL);
    let text = std::fs::read_to_string(STAT).call(|| format!("read({STAT:?})"))?;
    // proc_pid_stat(5): the second field is the program's name in parentheses, and may have anything in it.
    let (_, fields) = text.rsplit_once(')').ok_or_else(malformed)?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| -> Result<u64> {
        let word = fields.get(number - 3).ok_or_else(malformed)?;
        word.parse().map_err(|_| malformed())
    };
    if field(20)? != 1 {
        return Err(Error::new("remapping a process of threads", Errno::BUSY));
    }
    Ok(MemoryMap {
        start_code: field(26)?,
        end_code: field(27)?,
        start_stack: field(28)?,
        start_data: field(45)?,
        end_data: field(46)?,
        start_brk: field(47)?,
        brk: 0,
        arg_start: field(48)?,
        arg_end: field(49)?,
        env_start: field(50)?,
        env_end: field(51)?,
        auxv: 0,
        auxv_size: 0,
        exe_fd: file.as_raw_fd().cast_unsigned(),
    })
}

/// A part of the program in memory, in whole pages.
struct Pages {
    start: usize,
    length: usize,
    /// Where it is in the file.
    offset: u64,
}

/// Maps every segment anew from the file, with what was written to it since. The process has one thread.
fn map(file: &OwnedFd) -> Result<()> {
    let headers = headers();
    let table = headers.iter().find(|header| header.p_type == libc::PT_PHDR);
    // Where the table is, less where it would be: what a position-independent program was moved by.
    let bias = table.map(|table| headers.as_ptr().addr() - address(table.p_vaddr));
    let bias = bias.ok_or_else(|| Error::new("finding the program's headers", Errno::NOEXEC))?;
    let page = rustix::param::page_size();
    let pages = |header: &libc::Elf64_Phdr, bytes: u64| {
        let (first, last) = (header.p_vaddr, header.p_vaddr + bytes);
        let start = bias + address(first) / page * page;
        Pages {
            start,
            length: (bias + address(last)).next_multiple_of(page) - start,
            offset: header.p_offset / page as u64 * page as u64,
        }
    };
    let loaded = |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_filesz > 0;
    for header in headers.iter().filter(loaded) {
        let pages = pages(header, header.p_filesz);
        if header.p_flags & libc::PF_W == 0 {
            map_file(file, &pages, header.p_flags & libc::PF_X != 0)?;
        } else {
            map_written(file, &pages)?;
        }
    }
    for header in headers
        .iter()
        .filter(|header| header.p_type == libc::PT_GNU_RELRO)
    {
        // The C library has made it read-only when it was relocated, whole pages of it.
        let start = bias + address(header.p_vaddr) / page * page;
        let end = (bias + address(header.p_vaddr + header.p_memsz)) / page * page;
        protect(start, end.saturating_sub(start))?;
    }
    Ok(())
}

/// The running program's headers (getauxval(3)).
fn headers() -> &'static [libc::Elf64_Phdr] {
    // SAFETY: it reads what the kernel has handed over.
    let table = unsafe { libc::getauxval(libc::AT_PHDR) };
    // SAFETY: as above.
    let count = unsafe { libc::getauxval(libc::AT_PHNUM) };
    let table = std::ptr::with_exposed_provenance(address(table));
    // SAFETY: the kernel has put the program's headers there, so many of them; nobody writes to them.
    unsafe { std::slice::from_raw_parts(table, address(count)) }
}

/// An address of this process, which has those of its pointers.
#[allow(
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits where ELF files have"
)]
fn address(number: u64) -> usize {
    number as usize
}

/// Maps pages that nobody writes to.
fn map_file(file: &OwnedFd, pages: &Pages, executed: bool) -> Result<()> {
    let executable = if executed {
        ProtFlags::EXEC
    } else {
        ProtFlags::empty()
    };
    // SAFETY: the same bytes are mapped where they are, in one step, as the caller has verified.
    let mapped = unsafe {
        rustix::mm::mmap(
            pointer(pages.start),
            pages.length,
            ProtFlags::READ | executable,
            MapFlags::PRIVATE | MapFlags::FIXED,
            file,
            pages.offset,
        )
    };
    mapped.call(|| "mmap(MAP_FIXED)")?;
    Ok(())
}

/// The same for pages that are written to: the file's beside them first, then what differs copied, then put in their place.
fn map_written(file: &OwnedFd, pages: &Pages) -> Result<()> {
    // SAFETY: a new mapping, where nothing is.
    let beside = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            pages.length,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
            file,
            pages.offset,
        )
    };
    let beside = beside.call(|| "mmap(MAP_PRIVATE)")?;
    let original = pointer(pages.start);
    // SAFETY: it has that length, and nobody writes meanwhile, as there is one thread.
    let written = unsafe { std::slice::from_raw_parts(original.cast::<u8>(), pages.length) };
    // SAFETY: it has that length, and is this function's own.
    let anew = unsafe { std::slice::from_raw_parts_mut(beside.cast::<u8>(), pages.length) };
    let page = rustix::param::page_size();
    for (new, old) in anew.chunks_mut(page).zip(written.chunks(page)) {
        if new != old {
            new.copy_from_slice(old);
        }
    }
    // SAFETY: the same bytes are mapped where they are, in one step.
    let moved = unsafe {
        rustix::mm::mremap_fixed(
            beside,
            pages.length,
            pages.length,
            MremapFlags::MAYMOVE,
            original,
        )
    };
    moved.call(|| "mremap(MREMAP_FIXED)")?;
    Ok(())
}

fn protect(start: usize, length: usize) -> Result<()> {
    // SAFETY: it was so before it was mapped anew: nobody writes there.
    let result = unsafe { rustix::mm::mprotect(pointer(start), length, MprotectFlags::READ) };
    result.call(|| "mprotect(PROT_READ)")
}

fn pointer(address: usize) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address)
}
