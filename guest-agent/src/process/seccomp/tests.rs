use serde_json::{Value, json};

use super::{
    program::interpreter::{Call, run},
    *,
};

const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

fn profile(syscalls: &Value) -> LinuxSeccomp {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": syscalls
    });
    serde_json::from_value(profile).unwrap()
}

/// Asks the compiled filter, by way of its packed form.
fn ask(profile: &LinuxSeccomp, architecture: u32, number: i64, arguments: [u64; 6]) -> u32 {
    let filter = Filter::compile(profile).unwrap();
    let program: Vec<Instruction> = filter.instructions.iter().map(|packed| unpack(*packed)).collect();
    run(&program, Call { number: number as u32, architecture, arguments })
}

fn native(profile: &LinuxSeccomp, number: i64, first_argument: u64) -> u32 {
    ask(profile, AUDIT_ARCH_X86_64, number, [first_argument, 0, 0, 0, 0, 0])
}

#[test]
fn the_rules_of_a_default_profile_hold() {
    let profile = profile(&json!([
        {"names": ["read", "write", "exit_group", "newfstatat", "pidfd_open", "no_such_call"],
         "action": "SCMP_ACT_ALLOW"},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 2_114_060_288u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}
    ]));
    let clone_flags = |flags: i32| native(&profile, libc::SYS_clone, flags.cast_unsigned().into());
    assert_eq!(native(&profile, libc::SYS_read, 0), ALLOW);
    assert_eq!(native(&profile, libc::SYS_write, 0), ALLOW);
    assert_eq!(native(&profile, libc::SYS_newfstatat, 0), ALLOW);
    assert_eq!(native(&profile, libc::SYS_mount, 0), EPERM);
    assert_eq!(native(&profile, libc::SYS_open, 0), EPERM);
    assert_eq!(clone_flags(libc::SIGCHLD), ALLOW);
    assert_eq!(clone_flags(libc::SIGCHLD | libc::CLONE_NEWUSER), EPERM);
    assert_eq!(native(&profile, libc::SYS_clone3, 0), ENOSYS);
    assert_eq!(native(&profile, libc::SYS_personality, 0), ALLOW);
    assert_eq!(native(&profile, libc::SYS_personality, 8), ALLOW);
    assert_eq!(native(&profile, libc::SYS_personality, 1 << 32), EPERM);
    assert_eq!(native(&profile, libc::SYS_socket, 2), ALLOW);
    assert_eq!(native(&profile, libc::SYS_socket, 40), EPERM);
    // Newer than all that is named, and calls of the x32 interface.
    assert_eq!(native(&profile, libc::SYS_mseal, 0), ENOSYS);
    assert_eq!(native(&profile, 0x4000_0000, 0), ENOSYS);
}

#[test]
fn thirty_two_bit_programs_have_numbers_of_their_own() {
    let mut profile = profile(&json!([{"names": ["write"], "action": "SCMP_ACT_ALLOW"}]));
    let (native_write, compat_write) = (1, 4);
    assert_eq!(ask(&profile, AUDIT_ARCH_X86_64, native_write, [0; 6]), ALLOW);
    assert_eq!(ask(&profile, AUDIT_ARCH_I386, compat_write, [0; 6]), ALLOW);
    assert_eq!(ask(&profile, AUDIT_ARCH_I386, native_write, [0; 6]), EPERM);
    assert_eq!(ask(&profile, 0x1234, compat_write, [0; 6]), KILL_THREAD);
    profile.set_architectures(Some(vec![Arch::ScmpArchX86_64]));
    assert_eq!(ask(&profile, AUDIT_ARCH_I386, compat_write, [0; 6]), KILL_THREAD);
}

#[test]
fn a_profile_may_forbid_instead_of_allow() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["chmod"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "args": [
            {"index": 0, "value": 3, "op": "SCMP_CMP_GE"}, {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["kill"], "action": "SCMP_ACT_LOG"}
    ]});
    let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
    assert_eq!(native(&profile, libc::SYS_chmod, 0), KILL_PROCESS);
    assert_eq!(native(&profile, libc::SYS_kill, 0), LOG);
    assert_eq!(native(&profile, libc::SYS_kill, 1), ERRNO | 5);
    assert_eq!(native(&profile, libc::SYS_kill, 9), ERRNO | 5);
    assert_eq!(native(&profile, libc::SYS_mseal, 0), ALLOW);
}

#[test]
fn calls_newer_than_the_profile_can_be_fallen_back_from() {
    for (action, errno, named, newer) in [
        ("SCMP_ACT_ERRNO", 13, ERRNO | 13, ENOSYS),
        ("SCMP_ACT_KILL", 1, KILL_THREAD, ENOSYS),
        ("SCMP_ACT_KILL_PROCESS", 1, KILL_PROCESS, ENOSYS),
        ("SCMP_ACT_TRAP", 1, TRAP, ENOSYS),
        ("SCMP_ACT_TRACE", 7, TRACE | 7, TRACE | 7),
        ("SCMP_ACT_LOG", 1, LOG, LOG),
    ] {
        let profile = json!({"defaultAction": action, "defaultErrnoRet": errno, "syscalls": [
            {"names": ["pidfd_open"], "action": "SCMP_ACT_ALLOW"}
        ]});
        let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
        assert_eq!(native(&profile, libc::SYS_mount, 0), named, "{action}");
        assert_eq!(native(&profile, libc::SYS_mseal, 0), newer, "{action}");
    }
}

#[test]
fn every_call_of_a_long_profile_gets_its_own_answer() {
    // Every second call is allowed: the longest program that a list of names can make.
    let names: Vec<(&str, u32)> = syscalls::numbers(syscalls::X86_64).collect();
    let allowed: Vec<&str> = names.iter().map(|entry| entry.0).step_by(2).collect();
    let profile = profile(&json!([{"names": allowed, "action": "SCMP_ACT_ALLOW"}]));
    let last = names.iter().step_by(2).map(|entry| entry.1).max().unwrap();
    for (at, (name, number)) in names.iter().enumerate() {
        let expected = if at % 2 == 0 {
            ALLOW
        } else if *number > last {
            ENOSYS
        } else {
            EPERM
        };
        assert_eq!(native(&profile, i64::from(*number), 0), expected, "{name}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let compile = |rule: Value| Filter::compile(&profile(&json!([rule]))).map_err(|error| error.to_string());
    assert!(compile(json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})).is_err());
    assert!(compile(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 70000})).is_err());
    let seventh = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [
        {"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]});
    assert!(compile(seventh).unwrap_err().contains("no argument 6"));
}
