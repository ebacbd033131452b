//! Programs for the kernel's classic BPF machine, as far as seccomp uses it: a decision by number, then by arguments.
//!
//! Every piece of a program ends in a return on each of its ways and jumps forward within itself only, so pieces are put
//! together by writing one behind the other.

/// One instruction: `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions are skipped when a condition holds.
    pub jt: u8,
    /// How many are skipped when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl Instruction {
    /// As the kernel takes it. Both architectures that there are programs for are little-endian.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        let [a, b] = self.code.to_le_bytes();
        let [c, d, e, f] = self.k.to_le_bytes();
        [a, b, self.jt, self.jf, c, d, e, f]
    }
}

/// Load a 32-bit word of `struct seccomp_data` at offset `k`.
pub const LOAD: u16 = 0x20;
/// Keep the bits that are in `k`.
pub const AND: u16 = 0x54;
/// Skip `k` instructions.
pub const JUMP: u16 = 0x05;
/// Is it `k`?
pub const EQUAL: u16 = 0x15;
/// Is any bit of `k` in it?
pub const ANY: u16 = 0x45;
/// Is it `k` or more?
pub const AT_LEAST: u16 = 0x35;
/// Answer `k`.
pub const RETURN: u16 = 0x06;

const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// x86-64's numbers of its second, 32-bit kind start here.
const X32: u32 = 0x4000_0000;

/// What is answered to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// It is made.
    Allow,
    /// It is not, and this is `errno`.
    Refuse(u16),
    /// Whoever holds the listener answers it.
    Notify,
    /// The process ends.
    Kill,
}

impl Action {
    /// As the kernel spells it.
    #[must_use]
    pub const fn value(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Refuse(errno) => 0x0005_0000 | errno as u32,
            Self::Notify => 0x7fc0_0000,
            Self::Kill => 0x8000_0000,
        }
    }
}

/// What is asked of one argument. Where the kernel takes an `int`, its low word is all that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// These bits of its low word are one of the values.
    OneOf {
        /// Which argument, from 0.
        argument: u8,
        /// Which bits.
        mask: u32,
        /// What they may be; at least one, in order.
        values: &'static [u32],
    },
    /// Any of these bits of its low word is set.
    Any {
        /// Which argument, from 0.
        argument: u8,
        /// Which bits.
        mask: u32,
    },
    /// It is a null pointer.
    Null {
        /// Which argument, from 0.
        argument: u8,
    },
}

/// The first clause of which all conditions hold decides, and `otherwise` when there is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// In order.
    pub clauses: Vec<(Vec<Condition>, Action)>,
    /// What is left.
    pub otherwise: Action,
}

impl From<Action> for Rule {
    fn from(action: Action) -> Self {
        Self {
            clauses: Vec::new(),
            otherwise: action,
        }
    }
}

/// A whole program. `rules` are by number, sorted; a number without one gets `default`, another architecture than
/// `architecture` ends the process.
#[must_use]
pub fn program(architecture: u32, has_x32: bool, rules: &[(u32, Rule)], default: Action) -> Vec<Instruction> {
    let mut code = vec![
        load(ARCHITECTURE),
        skip_if(EQUAL, architecture, 1, 0),
        answer(Action::Kill),
        load(NUMBER),
    ];
    if has_x32 {
        code.extend([skip_if(AT_LEAST, X32, 0, 1), answer(default)]);
    }
    code.extend(tree(&ranges(rules, &Rule::from(default))));
    code
}

/// Neighbours of one rule as one range, gaps filled with the default: where each starts, and its rule.
fn ranges<'a>(rules: &'a [(u32, Rule)], default: &'a Rule) -> Vec<(u32, &'a Rule)> {
    let mut ranges: Vec<(u32, &Rule)> = Vec::new();
    let mut add = |start, rule| {
        if ranges.last().is_none_or(|(_, last)| *last != rule) {
            ranges.push((start, rule));
        }
    };
    let mut next = 0;
    for (number, rule) in rules {
        if *number > next {
            add(next, default);
        }
        add(*number, rule);
        next = number + 1;
    }
    add(next, default);
    ranges
}

/// Halves the ranges until one is left. The number is loaded.
fn tree(ranges: &[(u32, &Rule)]) -> Vec<Instruction> {
    if let [(_, rule)] = ranges {
        return rule_code(rule);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let Some((pivot, _)) = high.first() else {
        return vec![answer(Action::Kill)];
    };
    let (below, above) = (tree(low), tree(high));
    let mut code = match u8::try_from(below.len()) {
        Ok(far) => vec![skip_if(AT_LEAST, *pivot, far, 0)],
        // A condition skips 255 at most, a jump as many as there are.
        Err(_) => vec![
            skip_if(AT_LEAST, *pivot, 0, 1),
            Instruction {
                code: JUMP,
                jt: 0,
                jf: 0,
                k: u32::try_from(below.len()).unwrap_or(u32::MAX),
            },
        ],
    };
    code.extend(below);
    code.extend(above);
    code
}

fn rule_code(rule: &Rule) -> Vec<Instruction> {
    let mut code = Vec::new();
    for (conditions, action) in &rule.clauses {
        // Written from its end, so that every failing condition knows how far the next clause is.
        let mut clause = vec![answer(*action)];
        for condition in conditions.iter().rev() {
            let rest = length(&clause);
            let test = match *condition {
                Condition::OneOf { argument, mask, values } => {
                    let mut test = vec![load(low_word(argument))];
                    if mask != u32::MAX {
                        test.push(Instruction {
                            code: AND,
                            jt: 0,
                            jf: 0,
                            k: mask,
                        });
                    }
                    debug_assert!((1..200).contains(&values.len()), "a list is short");
                    for (left, value) in (0..values.len()).rev().zip(values) {
                        let to_rest = u8::try_from(left).unwrap_or(u8::MAX);
                        test.push(skip_if(EQUAL, *value, to_rest, if left == 0 { rest } else { 0 }));
                    }
                    test
                }
                Condition::Any { argument, mask } => vec![load(low_word(argument)), skip_if(ANY, mask, 0, rest)],
                Condition::Null { argument } => vec![
                    load(low_word(argument)),
                    skip_if(EQUAL, 0, 0, rest + 2),
                    load(low_word(argument) + 4),
                    skip_if(EQUAL, 0, 0, rest),
                ],
            };
            clause.splice(0..0, test);
        }
        code.extend(clause);
    }
    code.push(answer(rule.otherwise));
    code
}

/// The length of a clause, which has a handful of conditions.
fn length(clause: &[Instruction]) -> u8 {
    debug_assert!(clause.len() < 200, "a clause is short");
    u8::try_from(clause.len()).unwrap_or(u8::MAX)
}

const fn low_word(argument: u8) -> u32 {
    ARGUMENTS + argument as u32 * 8
}

const fn load(offset: u32) -> Instruction {
    Instruction {
        code: LOAD,
        jt: 0,
        jf: 0,
        k: offset,
    }
}

const fn answer(action: Action) -> Instruction {
    Instruction {
        code: RETURN,
        jt: 0,
        jf: 0,
        k: action.value(),
    }
}

const fn skip_if(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}
