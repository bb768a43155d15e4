//! Limits, huge pages, devices.

use super::*;

#[test]
fn limits_reach_the_cgroup() {
    let spec = with(|request| {
        *request.resources() = LinuxContainerResources {
            cpu_shares: 512,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 1 << 26,
            oom_score_adj: 999,
            cpuset_cpus: "0-63".into(),
            cpuset_mems: "7".into(),
            hugepage_limits: vec![cri::HugepageLimit { page_size: "2MB".into(), limit: 0 }],
            unified: [("memory.high".into(), "1000".into()), ("pids.max".into(), "77".into())].into(),
            ..Default::default()
        };
    });
    let resources = linux(&spec).resources().clone().unwrap();
    let cpu = resources.cpu().clone().unwrap();
    assert_eq!((cpu.shares(), cpu.quota(), cpu.period()), (Some(512), Some(50_000), Some(100_000)));
    assert_eq!((cpu.cpus().as_deref(), cpu.mems().as_deref()), (Some("0-63"), Some("7")));
    let hugepages = resources.hugepage_limits().clone().unwrap();
    assert_eq!((hugepages[0].page_size().as_str(), hugepages[0].limit()), ("2MB", 0));
    let memory = resources.memory().unwrap();
    assert_eq!((memory.limit(), memory.swap()), (Some(1 << 26), Some(1 << 26)), "no swap unless asked for");
    assert_eq!(resources.pids().unwrap().limit(), 77);
    assert_eq!(resources.unified().as_ref().unwrap(), &[("memory.high".into(), "1000".into())].into());
    assert_eq!(process(&spec).oom_score_adj(), Some(999));
}

#[test]
fn the_limit_of_processes_is_the_containers_the_pods_or_the_nodes() {
    let limit = |unified: Option<&str>, annotation: Option<&str>| {
        let spec = with(|request| {
            if let Some(value) = unified {
                request.resources().unified.insert("pids.max".into(), value.into());
            }
            if let Some(value) = annotation {
                request.sandbox.annotations.insert("a3s.box/pids-limit".into(), value.into());
            }
        });
        linux(&spec).resources().as_ref().unwrap().pids().unwrap().limit()
    };
    assert_eq!((limit(Some("5"), Some("6")), limit(None, Some("6")), limit(None, None)), (5, 6, 100));
    for value in ["1001", "max", "0", "-1", "many"] {
        refused(&["pids.max", value], |request| {
            request.resources().unified.insert("pids.max".into(), value.into());
        });
        refused(&["a3s.box/pids-limit", value], |request| {
            request.sandbox.annotations.insert("a3s.box/pids-limit".into(), value.into());
        });
    }
}

#[test]
fn resources_that_make_no_sense_are_refused_by_name() {
    refused(&["hugepage_limits", "2MB"], |request| {
        request.resources().hugepage_limits = vec![cri::HugepageLimit { page_size: "2MB".into(), limit: 1 }];
    });
    for wrong in ["0-", "many", "0-4000000000"] {
        refused(&["cpuset_cpus", wrong], |request| request.resources().cpuset_cpus = wrong.into());
    }
    refused(&["memory_swap_limit", "memory_limit"], |request| {
        request.resources().memory_swap_limit_in_bytes = 1;
    });
    refused(&["cpu_shares", "-5"], |request| request.resources().cpu_shares = -5);
    for quota in [-5, 999] {
        refused(&["cpu_quota", &quota.to_string()], |request| request.resources().cpu_quota = quota);
    }
    for period in [-5, 999, 1_000_001] {
        refused(&["cpu_period", &period.to_string()], |request| request.resources().cpu_period = period);
    }
    refused(&["memory_swap_limit"], |request| {
        (request.resources().memory_limit_in_bytes, request.resources().memory_swap_limit_in_bytes) = (2, 1);
    });
    refused(&["oom_score_adj", "2000"], |request| request.resources().oom_score_adj = 2000);
    for key in ["cpuset.cpus", "cgroup.freeze", "io.max", "memory/../../x", "memory.\0"] {
        refused(&["unified"], |request| {
            request.resources().unified.insert(key.into(), "1".into());
        });
    }
    refused(&["a3s.box/vcpus"], |request| {
        request.container.annotations.insert("a3s.box/vcpus".into(), "2".into());
    });
}

#[test]
fn huge_pages_come_from_the_pods_own_pool() {
    let pages = |size: &str, limit| vec![cri::HugepageLimit { page_size: size.into(), limit }];
    let pool = |request: &mut Request, size: &str, limit| {
        let linux = request.sandbox.linux.get_or_insert_default();
        linux.resources.get_or_insert_default().hugepage_limits = pages(size, limit);
    };
    let spec = with(|request| {
        pool(request, "2MB", 4 << 20);
        request.resources().hugepage_limits = [pages("2MB", 2 << 20), pages("1GB", 0)].concat();
    });
    let limits = linux(&spec).resources().as_ref().unwrap().hugepage_limits().clone().unwrap();
    assert_eq!(limits.len(), 1, "of sizes that the guest has");
    assert_eq!(limits[0].limit(), 2 << 20);
    refused(&["hugepage_limits", "2MB", "pool of 4194304"], |request| {
        pool(request, "2MB", 4 << 20);
        request.resources().hugepage_limits = pages("2MB", 6 << 20);
    });
    refused(&["hugepage_limits", "1GB", "2MB"], |request| {
        request.resources().hugepage_limits = pages("1GB", 1 << 30);
    });
    for (size, limit, word) in [("1GB", 1 << 30, "2MB"), ("2MB", 3 << 20, "whole number")] {
        let mut request = Request::new();
        pool(&mut request, size, limit);
        let error = crate::check_sandbox(&request.sandbox).unwrap_err().to_string();
        assert!(error.contains(size) && error.contains(word), "{error}");
    }
}

#[test]
fn devices_are_the_guests_own_and_every_other_one_is_refused_by_name() {
    let device = |host: &str, container: &str| cri::Device {
        host_path: host.into(),
        container_path: container.into(),
        permissions: "rw".into(),
    };
    let spec = with(|request| {
        request.container.devices = vec![device("/dev/fuse", "/dev/fuse"), device("/dev/null", "/dev/null")];
    });
    let nodes = linux(&spec).devices().clone().unwrap();
    assert_eq!(nodes.len(), 1);
    assert_eq!(
        (nodes[0].path().as_path(), nodes[0].major(), nodes[0].minor()),
        (Path::new("/dev/fuse"), 10, 229)
    );
    let rules = linux(&spec).resources().as_ref().unwrap().devices().clone().unwrap();
    assert!(rules[1].allow() && rules[1].access().as_deref() == Some("rw"));

    let spec = with(|request| request.container.devices = vec![device("/dev/loop7", "/dev/xvda")]);
    let disk = linux(&spec).devices().clone().unwrap().remove(0);
    assert_eq!((disk.path().to_str(), disk.major(), disk.minor()), (Some("/dev/xvda"), 7, 7));
    assert_eq!(disk.typ(), oci_spec::runtime::LinuxDeviceType::B);

    refused(&["/dev/sda"], |request| request.container.devices = vec![device("/dev/sda", "/dev/sda")]);
    refused(&["vendor.com/gpu=0"], |request| {
        request.container.cdi_devices = vec![cri::CdiDevice { name: "vendor.com/gpu=0".into() }];
    });
}
