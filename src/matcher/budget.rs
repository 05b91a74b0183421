//! How much a pattern may cost, to compile and to run. What is over budget is refused when it is loaded, with
//! the construct that makes it so; nothing is refused, or slow, because of what a body contains: a lazy pattern is
//! given up on such a body.

/// Longest pattern, in bytes of its text.
pub const PATTERN_BYTES_MAX: usize = 4 * 1024;
/// Deepest nesting of groups: the parser and the compilers are recursive, and their stack is bounded by this.
pub const GROUP_DEPTH_MAX: u32 = 64;
/// Largest count in `{n}`: beyond it, tables and the time to build them grow for patterns nobody meant.
pub const REPEAT_MAX: u32 = 1_000;
/// Most patterns of one endpoint in each of its two lists.
pub const PATTERNS_MAX: usize = 16;
/// Most tables side by side for one endpoint: each costs a load per byte, and 4 bytes per body.
pub const CONJUNCTS_MAX: usize = 32;
/// Most conjuncts that one pattern is split into.
pub const SPLIT_MAX: usize = 8;
/// Memory of the raw automaton while it is built by determinisation. Time is in proportion: of a gap such as
/// `.{1,200}` 14 ms to here, and 60 ms to 2 MiB, where hardly any pattern ends below [`TABLE_BYTES_SOFT`] that does not
/// here.
pub const DETERMINIZE_BYTES_MAX: usize = 512 * 1024;
/// Memory of the NFA that is determinised.
pub const NFA_BYTES_MAX: usize = 4 * 1024 * 1024;
/// States of the raw automaton of a pattern with lookarounds.
pub const RAW_STATES_MAX: usize = 20_000;
/// States of the alternating automaton of a pattern with lookarounds.
pub const ALTERNATING_STATES_MAX: usize = 20_000;
/// Decisions of the formulas of a pattern with lookarounds.
pub const FORMULA_NODES_MAX: usize = 200_000;
/// Steps of the compiler of lookarounds; up to 30 ns each in a release build.
pub const COMPILE_STEPS_MAX: u64 = 6_000_000;
/// Steps that remembering a formula or its derivative counts for: the tables that find them outgrow the caches, and an
/// entry then takes 0.2 µs. So there are at most 670,000 of them, 40 MiB with the tables half empty.
pub const KEEP_STEPS: u64 = 8;
/// Steps that a cell of the raw automaton counts for: its successor must be looked up, and minimising takes 0.2 µs of
/// each, and 20 bytes.
pub const CELL_STEPS: u64 = 8;
/// Bytes of a table above which a lazily built one is used instead, where that is possible.
pub const TABLE_BYTES_SOFT: usize = 64 * 1024;
/// Bytes of a table above which a pattern is refused, unless it can be built lazily.
pub const TABLE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the tables of one endpoint together. Side by side they are beyond the caches sooner than one is: eight of
/// 128 KiB do 55 MB/s, sixteen 10, and thirty-two 2.
pub const ENDPOINT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of all tables together.
pub const TABLES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of a lazily built table, of which every body has its own.
pub const LAZY_BYTES_MAX: usize = 128 * 1024;
/// Most lazily built tables of one endpoint, and so of one body: half a megabyte.
pub const LAZY_CONJUNCTS_MAX: usize = 4;
/// What making states may take for one body, in bytes of the places in the pattern that they stand for, until its
/// verdict is given up. A byte takes 6 to 12 ns, of `x.{1,1000}q` on random letters as of `error.{1,200}code` on a
/// log: some 3 ms for a body, whatever the pattern. A state with one attempt under way takes 20 bytes, one of
/// `x.{1,200}q` on random letters 100 to 300.
pub const LAZY_STEPS_MAX: usize = 256 * 1024;

/// The budgets of a [`Compiler`](super::Compiler).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// See [`PATTERN_BYTES_MAX`].
    pub pattern_bytes_max: usize,
    /// See [`DETERMINIZE_BYTES_MAX`].
    pub determinize_bytes_max: usize,
    /// See [`RAW_STATES_MAX`].
    pub raw_states_max: usize,
    /// See [`ALTERNATING_STATES_MAX`].
    pub alternating_states_max: usize,
    /// See [`FORMULA_NODES_MAX`].
    pub formula_nodes_max: usize,
    /// See [`COMPILE_STEPS_MAX`].
    pub compile_steps_max: u64,
    /// See [`TABLE_BYTES_SOFT`].
    pub table_bytes_soft: usize,
    /// See [`TABLE_BYTES_MAX`].
    pub table_bytes_max: usize,
    /// See [`TABLES_BYTES_MAX`].
    pub tables_bytes_max: usize,
    /// See [`LAZY_BYTES_MAX`].
    pub lazy_bytes_max: usize,
    /// See [`LAZY_STEPS_MAX`].
    pub lazy_steps_max: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            pattern_bytes_max: PATTERN_BYTES_MAX,
            determinize_bytes_max: DETERMINIZE_BYTES_MAX,
            raw_states_max: RAW_STATES_MAX,
            alternating_states_max: ALTERNATING_STATES_MAX,
            formula_nodes_max: FORMULA_NODES_MAX,
            compile_steps_max: COMPILE_STEPS_MAX,
            table_bytes_soft: TABLE_BYTES_SOFT,
            table_bytes_max: TABLE_BYTES_MAX,
            tables_bytes_max: TABLES_BYTES_MAX,
            lazy_bytes_max: LAZY_BYTES_MAX,
            lazy_steps_max: LAZY_STEPS_MAX,
        }
    }
}
