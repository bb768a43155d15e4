//! `delete`: cleans up after a shim that can no longer do it. It may run again, and after a clean end.

use std::{fs, io, path::Path, time::SystemTime};

use a3s_box_proto::{config::Config, ids::SandboxId};
use containerd_shim_protos::api::DeleteResponse;
use protobuf::{Message, MessageField};
use rustix::mount::UnmountFlags;

use super::Arguments;
use crate::{
    error::{Result, Step},
    pod::{layout::Layout, record::Record},
    sys::{file::absent_is_fine, mount::unmount_below, uid::Uid},
};

/// The exit status of what did not end by itself.
const KILLED: u32 = 137;

/// Kills what is left of the pod and removes what it held, and prints containerd's answer.
///
/// # Errors
/// Something stays.
pub fn run(arguments: &Arguments, config: &Config) -> Result<()> {
    let id: SandboxId = arguments.id.parse()?;
    let layout = Layout::new(config, &id);
    let bundle = arguments.bundle().step(|| "finding the bundle".into())?;
    let pid = clean(config, &layout, &bundle).step(|| format!("cleaning up after pod {id}"))?;
    let response = DeleteResponse {
        pid,
        exit_status: KILLED,
        exited_at: MessageField::some(SystemTime::now().into()),
        ..DeleteResponse::default()
    };
    let bytes = response.write_to_bytes().map_err(io::Error::other).step(|| "encoding the answer".into())?;
    io::Write::write_all(&mut io::stdout(), &bytes).step(|| "writing the answer".into())
}

fn clean(config: &Config, layout: &Layout, bundle: &Path) -> io::Result<u32> {
    let record = Record::read(&layout.record()).unwrap_or_default();
    for process in &record.processes {
        process.kill();
    }
    // What stays in one place keeps nothing in another: perhaps nobody comes back.
    let given_back = [
        record.cgroup.destroy(),
        record.uid.map_or(Ok(()), |uid| Uid::forget(config, uid)),
        absent_is_fine(fs::remove_dir_all(&layout.disk)),
    ];
    given_back.into_iter().collect::<io::Result<()>>()?;
    // With the record, by which it can be tried again, last. The pod's mounts were in its shim's mount namespace, and went
    // with its last process; a stray one in this namespace must go before anything is removed recursively.
    unmount_below(&layout.run, UnmountFlags::DETACH)?;
    remove_run_files(layout, bundle)?;
    let vm = record.processes.last().map(|process| process.pid.unsigned_abs());
    Ok(vm.unwrap_or_default())
}

/// Our files in the run directory. The directory itself is our frontend's bundle, and its containers' exit records
/// are the frontend's to read; under containerd, whose bundle is elsewhere, it goes as a whole.
fn remove_run_files(layout: &Layout, bundle: &Path) -> io::Result<()> {
    let same = |path: &Path| fs::canonicalize(path).ok();
    if same(bundle) != same(&layout.run) {
        return absent_is_fine(fs::remove_dir_all(&layout.run));
    }
    for directory in [layout.vsock(), layout.share(), layout.places()] {
        absent_is_fine(fs::remove_dir_all(directory))?;
    }
    for file in [layout.socket(), layout.lock(), layout.record()] {
        absent_is_fine(fs::remove_file(file))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{Identity, Program};

    fn pod(root: &Path) -> (Config, Layout) {
        let config = Config { state_dir: root.join("s"), root_dir: root.join("r"), ..Config::default() };
        let layout = Layout::new(&config, &"p1".parse().unwrap());
        fs::create_dir_all(&layout.run).unwrap();
        (config, layout)
    }

    #[tokio::test]
    async fn what_a_dead_shim_left_is_killed_and_removed_twice_over() {
        let root = tempfile::tempdir().unwrap();
        let (config, layout) = pod(root.path());
        let mut program = Program::new("sleep", Path::new("/bin/sleep")).unwrap();
        program.arg("60");
        let left = program.spawn().unwrap();
        let own = Identity::of(std::process::id().cast_signed()).unwrap();
        // The number of this test's process, as if it had belonged to a pod before.
        let reused = Identity { started: own.started + 1, ..own };
        let record = Record { processes: vec![reused, left.identity()], ..Record::default() };
        record.write(&layout.record()).unwrap();
        fs::create_dir_all(layout.share().join("layers")).unwrap();
        fs::create_dir_all(layout.run.join("containers/c1")).unwrap();
        fs::create_dir_all(&layout.disk).unwrap();
        for _ in 0..2 {
            clean(&config, &layout, &layout.run).unwrap();
        }
        assert_eq!(left.ended().await, "sleep was killed by signal 9");
        assert!(!layout.share().exists() && !layout.disk.exists() && !layout.record().exists());
        assert!(layout.run.join("containers/c1").exists(), "exit records are the frontend's");
    }

    #[test]
    fn under_containerd_the_run_directory_goes_as_a_whole() {
        let root = tempfile::tempdir().unwrap();
        let (config, layout) = pod(root.path());
        let bundle = root.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        clean(&config, &layout, &bundle).unwrap();
        assert!(!layout.run.exists() && bundle.exists());
    }
}
