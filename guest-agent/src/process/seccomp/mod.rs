//! A container's seccomp profile, compiled to a program for the kernel.
//!
//! libseccomp takes nearly a second for a default profile where the processor is emulated, since it copies its whole
//! state for each rule; every pod would wait for that. This compiler takes the profile as runc does: the first rule
//! whose conditions hold counts, then a rule without conditions, then the default.

mod program;
mod syscalls;

use std::collections::{BTreeMap, HashMap, HashSet};

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};
use serde::{Deserialize, Serialize};

use self::{
    program::{ARCHITECTURE, Compare, EQUAL, GREATER, Instruction, JUMP, LOAD, NUMBER, RETURN, plain, rule},
    syscalls::Range,
};
use crate::error::Error;

/// `SECCOMP_FILTER_FLAG_LOG` and `…_SPEC_ALLOW`.
const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// Of linux/audit.h.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// `SECCOMP_RET_*` of linux/seccomp.h.
const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
/// The kernel's limit for a program.
const MAX_INSTRUCTIONS: usize = 4096;

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Instructions as one number each, so that they take little in a message.
    instructions: Vec<u64>,
    flags: u32,
}

impl Filter {
    /// Compiles a profile.
    pub fn compile(profile: &LinuxSeccomp) -> Result<Self, Error> {
        let instructions = assemble(profile)?.into_iter().map(pack).collect();
        let flags = profile.flags().iter().flatten().map(|flag| match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
            // One thread has nobody to synchronise with, and without notification nobody waits.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync
            | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
        });
        Ok(Self { instructions, flags: flags.fold(0, |all, flag| all | flag) })
    }

    /// Puts the calling process under it.
    pub fn load(&self) -> std::io::Result<()> {
        let program: Vec<libc::sock_filter> = self
            .instructions
            .iter()
            .map(|packed| {
                let Instruction { code, jt, jf, k } = unpack(*packed);
                libc::sock_filter { code, jt, jf, k }
            })
            .collect();
        crate::sys::process::load_seccomp(&program, self.flags)
    }
}

fn pack(instruction: Instruction) -> u64 {
    let Instruction { code, jt, jf, k } = instruction;
    u64::from(code) << 48 | u64::from(jt) << 40 | u64::from(jf) << 32 | u64::from(k)
}

fn unpack(packed: u64) -> Instruction {
    Instruction {
        code: (packed >> 48) as u16,
        jt: (packed >> 40) as u8,
        jf: (packed >> 32) as u8,
        k: packed as u32,
    }
}

fn wrong(why: impl std::fmt::Display) -> Error {
    Error::invalid("seccomp profile", why)
}

/// First the architecture, which decides what the numbers mean.
fn assemble(profile: &LinuxSeccomp) -> Result<Vec<Instruction>, Error> {
    let native = body(profile, syscalls::X86_64)?;
    let wants_compat = profile.architectures().iter().flatten().any(|arch| *arch == Arch::ScmpArchX86);
    // A program of an architecture that the profile does not name could mean other calls by the same numbers.
    let compat = if wants_compat { body(profile, syscalls::I386)? } else { vec![plain(RETURN, KILL_THREAD)] };
    let mut program = vec![plain(LOAD, ARCHITECTURE)];
    program.push(Instruction { code: EQUAL, jt: 1, jf: 0, k: AUDIT_ARCH_X86_64 });
    program.push(plain(JUMP, native.len() as u32));
    program.extend(native);
    program.push(Instruction { code: EQUAL, jt: 1, jf: 0, k: AUDIT_ARCH_I386 });
    program.push(plain(RETURN, KILL_THREAD));
    program.extend(compat);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(wrong(format!("{} instructions; the kernel takes {MAX_INSTRUCTIONS}", program.len())));
    }
    Ok(program)
}

/// What happens to one system call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Verdict {
    conditional: Vec<(Vec<(u8, Compare)>, u32)>,
    always: Option<u32>,
}

/// The part for one architecture: the calls in the order of their numbers, runs of the same answer together.
fn body(profile: &LinuxSeccomp, table: &[Range]) -> Result<Vec<Instruction>, Error> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let verdicts = verdicts(profile, table)?;
    let mut program = vec![plain(LOAD, NUMBER)];
    // Numbers up to here have been dealt with, and the run since then has this answer.
    let mut run: Option<(u32, u32)> = None;
    let mut next = 0;
    for (number, verdict) in &verdicts {
        if *number > next {
            extend_run(&mut program, &mut run, *number - 1, default);
        }
        next = number + 1;
        let always = verdict.always.unwrap_or(default);
        if verdict.conditional.is_empty() {
            extend_run(&mut program, &mut run, *number, always);
            continue;
        }
        close_run(&mut program, run.take());
        let mut block: Vec<Instruction> =
            verdict.conditional.iter().flat_map(|(comparisons, action)| rule(comparisons, *action)).collect();
        block.push(plain(RETURN, always));
        let length = u32::try_from(block.len()).map_err(wrong)?;
        program.push(Instruction { code: GREATER, jt: 0, jf: 1, k: *number });
        program.push(plain(JUMP, length));
        program.extend(block);
    }
    close_run(&mut program, run);
    program.push(plain(RETURN, beyond(default)));
    Ok(program)
}

/// The answer to a call that is newer than all that the profile names: its author could not mean it, and programs try
/// new calls and go on with old ones if they are told that there is none (runc does so, too).
fn beyond(default: u32) -> u32 {
    match default {
        ALLOW | LOG => default,
        traced if traced & 0xffff_0000 == TRACE => traced,
        _ => ERRNO | libc::ENOSYS.cast_unsigned(),
    }
}

fn extend_run(program: &mut Vec<Instruction>, run: &mut Option<(u32, u32)>, last: u32, answer: u32) {
    if run.is_some_and(|(_, current)| current != answer) {
        close_run(program, run.take());
    }
    *run = Some((last, answer));
}

fn close_run(program: &mut Vec<Instruction>, run: Option<(u32, u32)>) {
    if let Some((last, answer)) = run {
        program.push(Instruction { code: GREATER, jt: 1, jf: 0, k: last });
        program.push(plain(RETURN, answer));
    }
}

fn verdicts(profile: &LinuxSeccomp, table: &[Range]) -> Result<BTreeMap<u32, Verdict>, Error> {
    let numbers: HashMap<&str, u32> = syscalls::numbers(table).collect();
    let mut verdicts: BTreeMap<u32, Verdict> = BTreeMap::new();
    for entry in profile.syscalls().iter().flatten() {
        let action = action(entry.action(), entry.errno_ret())?;
        let conditions = conditions(entry)?;
        // A name of another architecture, or of a later kernel, is no call of this one.
        for number in entry.names().iter().filter_map(|name| numbers.get(name.as_str())) {
            let verdict = verdicts.entry(*number).or_default();
            if conditions.is_empty() {
                verdict.always = verdict.always.or(Some(action));
            }
            verdict.conditional.extend(conditions.iter().map(|all| (all.clone(), action)));
        }
    }
    Ok(verdicts)
}

/// The alternatives of a rule, each of which is met if all its comparisons hold.
fn conditions(entry: &LinuxSyscall) -> Result<Vec<Vec<(u8, Compare)>>, Error> {
    let arguments = entry.args().as_deref().unwrap_or_default();
    let comparisons = arguments.iter().map(compare).collect::<Result<Vec<_>, _>>()?;
    let positions: HashSet<u8> = comparisons.iter().map(|(position, _)| *position).collect();
    if comparisons.is_empty() || positions.len() == comparisons.len() {
        return Ok(Vec::from_iter((!comparisons.is_empty()).then_some(comparisons)));
    }
    // libseccomp's rules look at each argument once; runc makes conditions on the same one alternatives.
    Ok(comparisons.into_iter().map(|comparison| vec![comparison]).collect())
}

fn compare(argument: &LinuxSeccompArg) -> Result<(u8, Compare), Error> {
    let position = u8::try_from(argument.index()).ok().filter(|position| *position < 6);
    let position = position.ok_or_else(|| wrong(format!("a call has no argument {}", argument.index())))?;
    let value = argument.value();
    let compare = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => Compare::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Compare::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Compare::AtMost(value),
        LinuxSeccompOperator::ScmpCmpEq => Compare::Equal(value),
        LinuxSeccompOperator::ScmpCmpGe => Compare::AtLeast(value),
        LinuxSeccompOperator::ScmpCmpGt => Compare::Greater(value),
        // The specification's names are misleading: `value` is the mask.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Compare::Masked { mask: value, value: argument.value_two().unwrap_or(0) }
        }
    };
    Ok((position, compare))
}

fn action(action: LinuxSeccompAction, data: Option<u32>) -> Result<u32, Error> {
    let data = data.unwrap_or(libc::EPERM.cast_unsigned());
    if data > 0xffff {
        return Err(wrong(format!("errnoRet {data} is too large")));
    }
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => TRAP,
        LinuxSeccompAction::ScmpActErrno => ERRNO | data,
        LinuxSeccompAction::ScmpActTrace => TRACE | data,
        LinuxSeccompAction::ScmpActLog => LOG,
        LinuxSeccompAction::ScmpActAllow => ALLOW,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(wrong("SCMP_ACT_NOTIFY needs an agent, and the guest has none"));
        }
    })
}

#[cfg(test)]
mod tests;
