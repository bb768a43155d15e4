//! The filter's program: classic BPF over `struct seccomp_data`.

/// An instruction, as the kernel packs it: code, two jump offsets, constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// Instructions to pass over if the condition holds.
    pub jt: u8,
    /// And if it does not.
    pub jf: u8,
    /// Its constant.
    pub k: u32,
}

/// `BPF_LD | BPF_W | BPF_ABS`: the accumulator becomes a word of the data.
pub const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`
pub const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JEQ | BPF_K`
pub const EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`
pub const GREATER: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`
pub const AT_LEAST: u16 = 0x35;
/// `BPF_JMP | BPF_JA`
pub const JUMP: u16 = 0x05;
/// `BPF_RET | BPF_K`
pub const RETURN: u16 = 0x06;

/// Offset of the system call's number in `struct seccomp_data`.
pub const NUMBER: u32 = 0;
/// Offset of the architecture.
pub const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// How an argument is compared, all bits of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Not this.
    NotEqual(u64),
    /// Below this.
    Less(u64),
    /// This or below.
    AtMost(u64),
    /// This.
    Equal(u64),
    /// This or above.
    AtLeast(u64),
    /// Above this.
    Greater(u64),
    /// This, under a mask.
    Masked {
        /// The bits that count.
        mask: u64,
        /// What they are to be.
        value: u64,
    },
}

/// Where a comparison goes on: to the next one, or to the next rule.
#[derive(Clone, Copy)]
enum Goto {
    Next,
    Pass,
    Fail,
}

/// An instruction without conditions.
pub const fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// A rule's instructions: all comparisons hold and `action` is returned, or what follows is reached. At most six
/// arguments of eight instructions: every jump is short.
pub fn rule(comparisons: &[(u8, Compare)], action: u32) -> Vec<Instruction> {
    let mut symbolic = Vec::new();
    let mut ends = Vec::new();
    for (argument, compare) in comparisons {
        let first = symbolic.len();
        comparison(*argument, *compare, &mut symbolic);
        ends.resize(symbolic.len(), symbolic.len());
        debug_assert!(symbolic.len() > first);
    }
    let fail = symbolic.len() + 1;
    let mut instructions: Vec<Instruction> = symbolic
        .into_iter()
        .zip(ends)
        .enumerate()
        .map(|(at, ((code, k, yes, no), pass))| {
            let offset = |goto| match goto {
                Goto::Next => 0,
                Goto::Pass => (pass - at - 1) as u8,
                Goto::Fail => (fail - at - 1) as u8,
            };
            Instruction { code, jt: offset(yes), jf: offset(no), k }
        })
        .collect();
    instructions.push(plain(RETURN, action));
    instructions
}

/// A 64-bit comparison by two words; the processor is little-endian.
fn comparison(argument: u8, compare: Compare, out: &mut Vec<(u16, u32, Goto, Goto)>) {
    use Goto::{Fail, Next, Pass};
    let low_at = ARGUMENTS + 8 * u32::from(argument);
    let load = |at| (LOAD, at, Next, Next);
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    match compare {
        Compare::Equal(value) => {
            let (high, low) = halves(value);
            out.extend([load(low_at + 4), (EQUAL, high, Next, Fail), load(low_at), (EQUAL, low, Next, Fail)]);
        }
        Compare::NotEqual(value) => {
            let (high, low) = halves(value);
            out.extend([load(low_at + 4), (EQUAL, high, Next, Pass), load(low_at), (EQUAL, low, Fail, Next)]);
        }
        Compare::Greater(value) | Compare::AtLeast(value) => {
            let (high, low) = halves(value);
            let code = if matches!(compare, Compare::Greater(_)) { GREATER } else { AT_LEAST };
            out.extend([load(low_at + 4), (GREATER, high, Pass, Next), (EQUAL, high, Next, Fail)]);
            out.extend([load(low_at), (code, low, Next, Fail)]);
        }
        Compare::Less(value) | Compare::AtMost(value) => {
            let (high, low) = halves(value);
            let code = if matches!(compare, Compare::Less(_)) { AT_LEAST } else { GREATER };
            out.extend([load(low_at + 4), (GREATER, high, Fail, Next), (EQUAL, high, Next, Pass)]);
            out.extend([load(low_at), (code, low, Fail, Next)]);
        }
        Compare::Masked { mask, value } => {
            let ((mask_high, mask_low), (high, low)) = (halves(mask), halves(value & mask));
            out.extend([load(low_at + 4), (AND, mask_high, Next, Next), (EQUAL, high, Next, Fail)]);
            out.extend([load(low_at), (AND, mask_low, Next, Next), (EQUAL, low, Next, Fail)]);
        }
    }
}

#[cfg(test)]
pub mod interpreter {
    //! What the kernel would do with a program.

    use super::*;

    /// A system call.
    #[derive(Debug, Clone, Copy, Default)]
    pub struct Call {
        pub number: u32,
        pub architecture: u32,
        pub arguments: [u64; 6],
    }

    /// Runs a program.
    pub fn run(program: &[Instruction], call: Call) -> u32 {
        let mut data = [0u8; 64];
        data[..4].copy_from_slice(&call.number.to_le_bytes());
        data[4..8].copy_from_slice(&call.architecture.to_le_bytes());
        for (argument, at) in call.arguments.iter().zip((16..).step_by(8)) {
            data[at..at + 8].copy_from_slice(&argument.to_le_bytes());
        }
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            let condition = match code {
                LOAD => {
                    accumulator = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap());
                    None
                }
                AND => {
                    accumulator &= k;
                    None
                }
                EQUAL => Some(accumulator == k),
                GREATER => Some(accumulator > k),
                AT_LEAST => Some(accumulator >= k),
                JUMP => {
                    at += k as usize;
                    None
                }
                RETURN => return k,
                other => panic!("unknown code {other:#x}"),
            };
            at += 1 + condition.map_or(0, |holds| usize::from(if holds { jt } else { jf }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        interpreter::{Call, run},
        *,
    };

    #[test]
    fn comparisons_look_at_all_bits() {
        let edges = [0, 1, 2, 40, u64::from(u32::MAX), 1 << 32, (1 << 32) + 40, u64::MAX - 1, u64::MAX];
        for value in edges {
            for argument in edges {
                let mask = 0xff00_0000_00ff;
                let cases = [
                    (Compare::Equal(value), argument == value),
                    (Compare::NotEqual(value), argument != value),
                    (Compare::Less(value), argument < value),
                    (Compare::AtMost(value), argument <= value),
                    (Compare::AtLeast(value), argument >= value),
                    (Compare::Greater(value), argument > value),
                    (Compare::Masked { mask, value }, argument & mask == value & mask),
                ];
                for (compare, expected) in cases {
                    // Alone, and behind one that holds and before one that holds.
                    let program = |comparisons: &[(u8, Compare)]| {
                        let mut program = rule(comparisons, 1);
                        program.push(plain(RETURN, 2));
                        program
                    };
                    let call = Call { arguments: [7, 0, argument, 0, 0, 9], ..Call::default() };
                    let wanted = if expected { 1 } else { 2 };
                    let several = [(0, Compare::NotEqual(1 << 40)), (2, compare), (5, Compare::Less(10))];
                    assert_eq!(run(&program(&several[1..2]), call), wanted, "{compare:?} of {argument:#x}");
                    assert_eq!(
                        run(&program(&several), call),
                        wanted,
                        "{compare:?} of {argument:#x} among others"
                    );
                }
            }
        }
    }
}
