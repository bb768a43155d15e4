//! Gives volumes back to the host.

use std::{fs, io, time::Duration};

use rustix::mount::UnmountFlags;
use tokio::time::{Instant, sleep};

use crate::rootfs::shared_dir::Place;
use crate::sys::{file::absent_is_fine, mount::unmount_below, thread::apart};

/// virtiofsd closes what the guest forgot a moment after the guest forgot it.
const BOUND: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Unmounts all at and below a place, and removes it. Plainly: a volume that somebody still uses is not
/// free, and a lazy unmount would only hide that.
///
/// # Errors
/// Something is in use after [`BOUND`].
pub async fn release(place: Place) -> io::Result<()> {
    let deadline = Instant::now() + BOUND;
    loop {
        let tried = place.clone();
        // What a dead server has may hang.
        match apart("unmount", move || unmount_and_remove(&tried)).await.flatten() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

fn unmount_and_remove(place: &Place) -> io::Result<()> {
    unmount_below(&place.seen, UnmountFlags::empty())?;
    // An empty file or directory; nothing was ever mounted on this one.
    match fs::remove_dir(&place.behind) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(&place.behind),
        removed => absent_is_fine(removed),
    }
}
