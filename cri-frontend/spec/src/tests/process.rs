//! The command, its variables, directory, user, and what another process of the container is.

use super::*;

#[test]
fn a_command_replaces_entrypoint_and_arguments_and_arguments_replace_only_arguments() {
    let list = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (command, args, expected) in [
        (&[][..], &[][..], &["entry", "cmd"][..]),
        (&["own"], &[], &["own"]),
        (&[], &["arg"], &["entry", "arg"]),
        (&["own"], &["arg"], &["own", "arg"]),
    ] {
        let spec = with(|request| {
            request.image = image(&json!({"Entrypoint": ["entry"], "Cmd": ["cmd"]}));
            request.container.command = list(command);
            request.container.args = list(args);
        });
        assert_eq!(process(&spec).args().as_ref().unwrap(), expected);
    }
    let spec = with(|request| {
        request.image = image(&json!({"Entrypoint": [""], "Cmd": ["cmd"]}));
        request.container.command.clear();
    });
    assert_eq!(process(&spec).args().as_ref().unwrap(), &["cmd"]);
    refused(&["no command specified"], |request| request.container.command.clear());
}

#[test]
fn the_containers_variables_override_the_images_which_override_ours() {
    let spec = with(|request| {
        request.image = image(&json!({"Env": ["PATH=/image", "A=image", "B=image", "HOSTNAME"]}));
        request.container.envs = vec![variable("A", b"own=1"), variable("C", b"")];
        request.container.tty = true;
    });
    let expected = ["PATH=/image", "TERM=xterm", "A=own=1", "B=image", "C="];
    assert_eq!(process(&spec).env().as_ref().unwrap(), &expected);
    let plain = with(|_| {});
    let env = process(&plain).env().as_ref().unwrap();
    assert!(env[0].starts_with("PATH=/usr/local/sbin:") && env[1..] == ["HOSTNAME=pod-host"], "{env:?}");
}

#[test]
fn variables_that_no_kernel_takes_are_refused_without_showing_their_value() {
    for (key, value) in [("", &b"secret"[..]), ("A=B", b"secret"), ("A", b"secret\0"), ("A", b"secret\xff")] {
        let mut request = Request::new();
        request.container.envs = vec![variable(key, value)];
        let error = request.spec().unwrap_err().to_string();
        assert!(error.contains("envs") && !error.contains("secret"), "{error}");
    }
    refused(&["envs", "bytes"], |request| {
        request.container.envs = vec![variable("A", &vec![b'x'; 200_000])];
    });
    refused(&["2097152"], |request| request.container.args = vec!["x".repeat(100_000); 30]);
    refused(&["command", "NUL"], |request| request.container.args = vec!["a\0b".into()]);
}

#[test]
fn the_working_directory_is_the_containers_the_images_or_the_root() {
    let cwd = |own: &str, image_dir: &str| {
        let spec = with(|request| {
            request.container.working_dir = own.into();
            request.image = image(&json!({"WorkingDir": image_dir}));
        });
        process(&spec).cwd().to_str().unwrap().to_owned()
    };
    assert_eq!(
        (cwd("/own", "/image"), cwd("", "/image"), cwd("", "")),
        ("/own".into(), "/image".into(), "/".into())
    );
    refused(&["working_dir", "\"app\""], |request| request.container.working_dir = "app".into());
}

#[test]
fn the_user_is_the_containers_or_the_images() {
    let lookup = |change: &dyn Fn(&mut LinuxContainerSecurityContext)| {
        let spec = with(|request| {
            request.image = image(&json!({"User": "app:staff"}));
            change(request.security());
        });
        (spec.user.user, spec.user.group)
    };
    let id = |value| Some(Int64Value { value });
    let pair = |user: &str, group: &str| (user.to_owned(), group.to_owned());
    assert_eq!(lookup(&|_| {}), pair("app", "staff"));
    assert_eq!(lookup(&|context| context.run_as_user = id(0)), pair("0", ""));
    assert_eq!(
        lookup(&|context| (context.run_as_user, context.run_as_group) = (id(1000), id(50))),
        pair("1000", "50")
    );
    assert_eq!(lookup(&|context| context.run_as_username = "www".into()), pair("www", ""));

    let spec = with(|request| {
        request.security().supplemental_groups = vec![7, 9];
        request.security().supplemental_groups_policy = cri::SupplementalGroupsPolicy::Strict.into();
    });
    assert_eq!((spec.user.supplemental_groups, spec.user.strict), (vec![7, 9], true));
}

#[test]
fn users_and_groups_that_cannot_be_are_refused() {
    let id = |value| Some(Int64Value { value });
    refused(&["run_as_group", "run_as_user"], |request| request.security().run_as_group = id(7));
    refused(&["run_as_user", "-1"], |request| request.security().run_as_user = id(-1));
    refused(&["run_as_user", "4294967296"], |request| request.security().run_as_user = id(1 << 32));
    refused(&["supplemental_groups"], |request| request.security().supplemental_groups = vec![1 << 31]);
    for user in ["root\n0", "4294967296", "a:b:c", &"x".repeat(10_000)] {
        refused(&["User"], |request| request.image = image(&json!({ "User": user })));
    }
}

#[test]
fn an_exec_is_the_containers_process_with_another_command() {
    let spec = with(|request| {
        request.container.envs = vec![variable("A", b"1")];
        request.security().no_new_privs = true;
        request.container.tty = false;
    });
    let command = ["ls".to_owned(), "-l".to_owned()];
    let exec = exec_process(process(&spec), &command, true).unwrap();
    assert_eq!((&exec["args"], &exec["terminal"]), (&json!(["ls", "-l"]), &json!(true)));
    let env = process(&spec).env().clone().unwrap();
    assert_eq!(exec["env"], json!([&env[..], &["TERM=xterm".to_owned()]].concat()));
    assert_eq!(exec["noNewPrivileges"], true);
    assert_eq!(exec["capabilities"]["bounding"].as_array().map(Vec::len), Some(14));
    assert_eq!(exec.get("user"), None, "only the guest knows it; 0 would be root");
    assert_eq!(exec_process(process(&spec), &command, false).unwrap()["env"], json!(env));
    assert!(exec_process(process(&spec), &[], false).is_err());
}
