//! The pod's scratch disk: a sparse file with an empty ext4. Of the configured size it is copied from a template; any
//! other is a tenant's choice, which leaves nothing behind.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use a3s_box_proto::config::Config;
use rustix::fs::{FlockOperation, SeekFrom, copy_file_range, flock, seek};
use tokio_util::sync::CancellationToken;

use crate::{
    error::interrupted,
    sys::{process::Program, thread::blocking},
};

/// Changes when a template must be made anew.
const TEMPLATE_VERSION: u32 = 2;

/// Makes a pod's scratch disk of so many MiB, or of the configured size, open for the VMM. What may take long is given up
/// when the pod is to be stopped.
///
/// # Errors
/// The disk is full, mkfs fails, or the pod is to be stopped.
pub async fn make(
    config: &Config,
    pod: &Path,
    asked_mb: Option<u64>,
    stop: &CancellationToken,
) -> io::Result<File> {
    let (mkfs, default_mb) = (&config.helpers.mkfs_ext4, config.scratch.default_mb);
    let (directory, path) = (pod.to_owned(), pod.join("scratch.ext4"));
    let (size_mb, created) = (asked_mb.unwrap_or(default_mb), path.clone());
    // Not given up: a directory that comes to be there afterwards would be nobody's.
    let disk = blocking(move || {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut options = OpenOptions::new();
        let disk = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(created)?;
        disk.set_len(size_mb << 20)?;
        Ok(disk)
    })
    .await?;
    let filled = stop.run_until_cancelled(async {
        if size_mb != default_mb {
            format(mkfs, &path).await?;
            return Ok(disk);
        }
        let template = template(mkfs, &config.root_dir.join("scratch"), size_mb).await?;
        blocking(move || copy_sparse(&template, &disk).map(|()| disk)).await
    });
    filled.await.unwrap_or_else(|| Err(interrupted()))
}

/// The template of the configured size, made where there is none. Two pods that want the same at once make it once.
async fn template(mkfs: &Path, directory: &Path, size_mb: u64) -> io::Result<File> {
    let path = directory.join(format!("{size_mb}.v{TEMPLATE_VERSION}.ext4"));
    let there = path.clone();
    if let Ok(template) = blocking(move || File::open(there)).await {
        return Ok(template);
    }
    let temporary = path.with_extension("tmp");
    let (locked, there, prepared) = (directory.to_owned(), path.clone(), temporary.clone());
    let (_lock, template) = blocking(move || {
        DirBuilder::new().recursive(true).mode(0o700).create(&locked)?;
        let lock = File::open(&locked)?;
        flock(&lock, FlockOperation::LockExclusive)?;
        // Whoever had the lock has made it.
        let template = File::open(&there).ok();
        if template.is_none() {
            File::create(&prepared)?.set_len(size_mb << 20)?;
        }
        Ok((lock, template))
    })
    .await?;
    if let Some(template) = template {
        return Ok(template);
    }
    format(mkfs, &temporary).await?;
    blocking(move || {
        fs::rename(&temporary, &path)?;
        File::open(&path)
    })
    .await
}

async fn format(mkfs: &Path, file: &Path) -> io::Result<()> {
    let mut program = Program::new("mkfs.ext4", mkfs)?;
    program
        // No journal and no checksums of metadata: nobody mounts the disk again after its pod, and a third of the time that
        // making small files takes goes into checksums where the processor is emulated.
        .args(["-q", "-F", "-O", "^has_journal,^metadata_csum,quota,project"])
        // The file is a hole, so nobody need write zeros into the inode tables, now or from within the guest.
        .args(["-E", "lazy_itable_init=1,assume_storage_prezeroed=1,nodiscard,quotatype=prjquota"])
        .arg(file);
    program.spawn()?.finished().await
}

/// Copies data and keeps holes.
fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut position = 0;
    loop {
        position = match seek(from, SeekFrom::Data(position)) {
            Ok(data) => data,
            // No data behind this position.
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = seek(from, SeekFrom::Hole(position))?;
        let mut target = position;
        while position < end {
            let chunk = usize::try_from(end - position).unwrap_or(usize::MAX);
            if copy_file_range(from, Some(&mut position), to, Some(&mut target), chunk)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{FileExt, MetadataExt},
        time::Duration,
    };

    use tokio::time::timeout;

    use super::*;

    fn config(root_dir: &Path) -> Config {
        let mut config = Config { root_dir: root_dir.into(), ..Config::default() };
        config.helpers.mkfs_ext4 = "/sbin/mkfs.ext4".into();
        config.scratch.default_mb = 16;
        config
    }

    #[tokio::test]
    async fn only_the_configured_size_has_a_template() {
        let root = tempfile::tempdir().unwrap();
        let (config, stop) = (config(root.path()), CancellationToken::new());
        for (asked, size) in [(Some(17), 17), (Some(16), 16), (None, 16)] {
            let disk = make(&config, &root.path().join("pod"), asked, &stop).await.unwrap();
            let mut magic = [0; 2];
            disk.read_exact_at(&mut magic, 1024 + 0x38).unwrap();
            assert_eq!((disk.metadata().unwrap().len(), magic), (size << 20, [0x53, 0xef]));
        }
        let templates = fs::read_dir(root.path().join("scratch")).unwrap();
        let names: Vec<_> = templates.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["16.v2.ext4"]);
    }

    #[tokio::test]
    async fn a_stop_waits_for_no_other_pods_template() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("scratch")).unwrap();
        let lock = File::open(root.path().join("scratch")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let (config, pod, stop) = (config(root.path()), root.path().join("pod"), CancellationToken::new());
        stop.cancel();
        let made = make(&config, &pod, None, &stop);
        let error = timeout(Duration::from_secs(5), made).await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the pod is being stopped");
    }

    #[test]
    fn a_copy_has_the_data_and_the_holes() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_len(64 << 20).unwrap();
        from.write_all_at(b"begin", 0).unwrap();
        from.write_all_at(b"middle", 32 << 20).unwrap();
        copy_sparse(&from, &to).unwrap();
        let mut bytes = [0; 6];
        to.read_exact_at(&mut bytes, 32 << 20).unwrap();
        assert_eq!(&bytes, b"middle");
        let there = to.metadata().unwrap();
        assert_eq!(there.len(), 64 << 20);
        assert!(there.blocks() * 512 < 1 << 20, "{} blocks", there.blocks());
    }
}
