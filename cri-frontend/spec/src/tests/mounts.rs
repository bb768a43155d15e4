//! Mounts and the images among them.

use super::*;

#[test]
fn mounts_come_in_the_order_in_which_none_hides_another() {
    let spec = with(|request| {
        request.container.mounts =
            vec![bind("/data/deep", "/a/b/c"), bind("/data/hosts", "/etc/hosts"), bind("/data/a", "/a/")];
    });
    assert_eq!(
        destinations(&spec),
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/mqueue",
            "/sys",
            "/sys/fs/cgroup",
            "/a",
            "/etc/hosts",
            "/dev/shm",
            "/etc/hostname",
            "/etc/resolv.conf",
            "/a/b/c"
        ]
    );
    let hosts = mount(&spec, "/etc/hosts");
    assert_eq!(
        hosts.source().as_deref(),
        Some(Path::new("/data/hosts")),
        "the container's own replaces the pod's"
    );
    assert_eq!(hosts.options().as_ref().unwrap(), &["rbind", "rprivate", "rw"]);
    let resolv = mount(&spec, "/etc/resolv.conf");
    assert_eq!(resolv.typ().as_deref(), Some("pod"));
    assert_eq!(resolv.source().as_deref(), Some(Path::new("resolv.conf")));
    assert_eq!(spec.host_mounts, ["/data/deep", "/data/hosts", "/data/a"].map(PathBuf::from));
}

#[test]
fn a_mounted_dev_takes_the_place_of_all_that_would_lie_in_it() {
    let spec = with(|request| request.container.mounts = vec![bind("/dev", "/dev")]);
    let found = destinations(&spec);
    assert!(!found.contains(&"/dev/pts") && !found.contains(&"/dev/mqueue"), "{found:?}");
    assert!(
        found.iter().position(|path| *path == "/dev") < found.iter().position(|path| *path == "/dev/shm")
    );
}

#[test]
fn access_propagation_and_options_reach_the_mount() {
    let options = |change: &dyn Fn(&mut cri::Mount)| {
        let mut asked = bind("/data", "/mnt");
        change(&mut asked);
        let spec = with(|request| request.container.mounts = vec![asked]);
        (mount(&spec, "/mnt").options().clone().unwrap().join(","), linux(&spec).rootfs_propagation().clone())
    };
    let slave = cri::MountPropagation::PropagationHostToContainer.into();
    assert_eq!(options(&|mount| mount.readonly = true), ("rbind,rprivate,ro".into(), None));
    assert_eq!(
        options(&|mount| (mount.readonly, mount.recursive_read_only) = (true, true)).0,
        "rbind,rprivate,rro"
    );
    assert_eq!(
        options(&|mount| mount.propagation = slave),
        ("rbind,rslave,rw".into(), Some("rslave".into()))
    );
    assert_eq!(options(&|mount| mount.mount_options = vec!["noexec".into()]).0, "rbind,rprivate,rw,noexec");
}

#[test]
fn mounts_that_make_no_sense_or_cannot_be_are_refused_by_name() {
    let mut cases: Vec<(&str, &str, cri::Mount)> = vec![
        ("container_path", "mnt", bind("/data", "mnt")),
        ("container_path", "root filesystem", bind("/data", "/mnt/..")),
        ("/mnt", "host_path", bind("data", "/mnt")),
        ("/mnt", "host_path", bind("", "/mnt")),
        ("/mnt", "NUL", bind("/da\0ta", "/mnt")),
        ("/mnt", "/proc/1", bind("/proc/1", "/mnt")),
        ("/mnt", "/sys", bind("/data/../sys", "/mnt")),
        ("/mnt", "runtime's own", bind("/run/a3s-box/pods", "/mnt")),
    ];
    let mut with_change = |words: (&'static str, &'static str), change: fn(&mut cri::Mount)| {
        let mut mount = bind("/data", "/mnt");
        change(&mut mount);
        cases.push((words.0, words.1, mount));
    };
    with_change(("/mnt", "propagation"), |mount| {
        mount.propagation = cri::MountPropagation::PropagationBidirectional.into();
    });
    with_change(("/mnt", "propagation"), |mount| mount.propagation = 9);
    with_change(("/mnt", "recursive_read_only"), |mount| mount.recursive_read_only = true);
    with_change(("/mnt", "image_sub_path"), |mount| mount.image_sub_path = "a".into());
    with_change(("/mnt", "upperdir"), |mount| mount.mount_options = vec!["upperdir=/x".into()]);
    with_change(("/mnt", "uidMappings"), |mount| mount.uid_mappings = vec![cri::IdMapping::default()]);
    for (field, value, mount) in cases {
        refused(&[field, value], |request| request.container.mounts = vec![mount]);
    }
    // The root of the host is normal: node-exporter has it.
    with(|request| request.container.mounts = vec![bind("/", "/host")]);
}

#[test]
fn an_image_is_mounted_read_only_by_its_layers() {
    let volume = |change: &dyn Fn(&mut cri::Mount)| {
        let mut mount = bind("", "/image");
        mount.readonly = true;
        mount.image = Some(cri::ImageSpec { image: "example.com/data:1".into(), ..Default::default() });
        change(&mut mount);
        mount
    };
    let spec = with(|request| {
        request.container.mounts = vec![volume(&|mount| mount.image_sub_path = "models/small".into())];
    });
    let found = mount(&spec, "/image");
    assert_eq!(found.typ().as_deref(), Some("image"));
    assert_eq!(found.source().as_deref(), Some(Path::new("models/small")));
    let options = ["rbind", "rprivate", "ro", "layer=/layers/0.erofs", "layer=/layers/1.erofs"];
    assert_eq!(found.options().as_ref().unwrap(), &options);
    assert!(spec.host_mounts.is_empty());

    type Change = fn(&mut cri::Mount);
    let cases: [(&str, Change); 6] = [
        ("image", |mount| mount.image = Some(cri::ImageSpec::default())),
        ("no image \"other\"", |mount| mount.image.as_mut().unwrap().image = "other".into()),
        ("host_path", |mount| mount.host_path = "/data".into()),
        ("readonly", |mount| mount.readonly = false),
        ("image_sub_path", |mount| mount.image_sub_path = "a/../../b".into()),
        ("image_sub_path", |mount| mount.image_sub_path = "/a".into()),
    ];
    for (field, change) in cases {
        refused(&["/image", field], |request| request.container.mounts = vec![volume(&change)]);
    }
}
