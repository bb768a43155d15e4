//! Socket lookup by a program of ours (`sk_lookup`, Linux 5.9): the few calls of bpf(2) that it takes. The crates for
//! bpf load object files that a compiler of C or a nightly Rust makes; this is some twenty instructions.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

// From linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const MAP_TYPE_SOCKMAP: u32 = 15;
const PROG_TYPE_SK_LOOKUP: u32 = 30;
const SK_LOOKUP: u32 = 36;

/// An instruction, as the kernel takes it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Instruction {
    code: u8,
    /// The source's number, then the target's.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    /// One instruction: code, target and source register, offset, immediate value.
    pub const fn new(code: u8, target: u8, source: u8, offset: i16, immediate: i32) -> Self {
        Self { code, registers: source << 4 | target, offset, immediate }
    }
}

/// Makes a map that holds one socket.
///
/// # Errors
/// The kernel has no such maps, or we lack the right.
pub fn socket_map(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    }
    #[repr(C)]
    struct Update {
        map: i32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let create = Create { map_type: MAP_TYPE_SOCKMAP, key_size: 4, value_size: 8, max_entries: 1 };
    // SAFETY: MAP_CREATE reads the structure.
    let map = unsafe { new_descriptor(MAP_CREATE, &create) }?;
    let (first, descriptor) = (0_u32, u64::from(socket.as_raw_fd().unsigned_abs()));
    let (key, value) = (address(&first), address(&descriptor));
    let update = Update { map: map.as_raw_fd(), padding: 0, key, value, flags: 0 };
    // SAFETY: MAP_UPDATE_ELEM reads the structure, and a key and a value of the sizes above, which outlive the call.
    unsafe { call(MAP_UPDATE_ELEM, &update) }?;
    Ok(map)
}

/// Loads a program that chooses the sockets of connections.
///
/// # Errors
/// The kernel does not know such programs or refuses this one, or we lack the right.
pub fn load_lookup(program: &[Instruction]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attached_as: u32,
    }
    let load = Load {
        kind: PROG_TYPE_SK_LOOKUP,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr().expose_provenance() as u64,
        license: c"Apache-2.0".as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"a3s_loopback\0\0\0\0",
        interface: 0,
        attached_as: SK_LOOKUP,
    };
    // SAFETY: PROG_LOAD reads the structure, the instructions and the licence, which outlive the call.
    unsafe { new_descriptor(PROG_LOAD, &load) }
}

/// Lets a program choose the sockets of a network namespace, until the descriptor that this gives is closed.
///
/// # Errors
/// The file is no network namespace, or another program has the place.
pub fn attach_lookup(program: BorrowedFd<'_>, netns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Link {
        program: i32,
        target: i32,
        attached_as: u32,
        flags: u32,
    }
    let link =
        Link { program: program.as_raw_fd(), target: netns.as_raw_fd(), attached_as: SK_LOOKUP, flags: 0 };
    // SAFETY: LINK_CREATE reads the structure.
    unsafe { new_descriptor(LINK_CREATE, &link) }
}

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value).expose_provenance() as u64
}

/// # Safety
/// The call must read what `attributes` is and points to, write nothing, and answer with a new descriptor.
unsafe fn new_descriptor<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: as the caller says.
    let descriptor = unsafe { call(command, attributes) }?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel made it for this call, closed on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// # Safety
/// The call must read what `attributes` is and points to, and write nothing.
unsafe fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads as many bytes as the structure has, and takes the rest of its own for zero.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
