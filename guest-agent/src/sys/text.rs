//! The agent's own code in huge pages. The processes that become containers' are copies of the agent, and each maps the code that it
//! runs anew: two entries instead of up to a thousand, and as many fewer to take down.
//!
//! The linker's `max-page-size` puts the code where its addresses and its places in the file agree up to 2 MiB.

use std::{ffi::c_int, io, ptr};

/// Collapses what of the code fills huge pages. What it does not fill stays as it is.
pub fn collapse() -> io::Result<()> {
    let mut outcome = Ok(());
    // SAFETY: the callback has the type that is asked for, and `outcome` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(collapse_object), (&raw mut outcome).cast()) };
    outcome
}

/// # Safety
/// `outcome` must point to an `io::Result<()>` that nobody else uses.
unsafe extern "C" fn collapse_object(
    object: *mut libc::dl_phdr_info,
    _: libc::size_t,
    outcome: *mut libc::c_void,
) -> c_int {
    // SAFETY: the C library gives a valid object, whose headers stay mapped as long as the program runs.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    for header in
        headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0)
    {
        let start = ptr::with_exposed_provenance_mut((base + header.p_vaddr) as usize & !0xfff);
        // SAFETY: the advice changes no content, and the range is a segment of this program.
        if unsafe { libc::madvise(start, header.p_memsz as usize, libc::MADV_COLLAPSE) } != 0 {
            // SAFETY: the caller's promise.
            unsafe { *outcome.cast::<io::Result<()>>() = Err(io::Error::last_os_error()) };
        }
    }
    // Static: there is one object.
    1
}
