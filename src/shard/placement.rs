//! Which CPU does what. Pure: given the CPUs this process may use, it names one for each shard and one for
//! the writer.
//!
//! The writer gets a core of its own when there are two or more, because a COPY or a commit on a probing core
//! would be seen as lag. Asked for as many shards as there are CPUs, it is left to the scheduler instead.

/// Where threads go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// One CPU per shard.
    pub shards: Vec<usize>,
    /// The writer's CPU; `None` leaves it unpinned.
    pub writer: Option<usize>,
}

/// Why there is no placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementError {
    /// More shards than CPUs: two on one core would be each other's lag.
    TooManyShards {
        /// How many were asked for.
        asked: usize,
        /// How many CPUs this process may use.
        cpus: usize,
    },
    /// No CPU, or no shard.
    Nothing,
}

impl Placement {
    /// Places `shards` of them (default: all CPUs but the writer's, at least one) on `cpus`.
    ///
    /// # Errors
    /// If there is no CPU, no shard, or more shards than CPUs.
    pub fn new(cpus: &[usize], shards: Option<usize>) -> Result<Self, PlacementError> {
        let shards = shards.unwrap_or_else(|| cpus.len().saturating_sub(1).max(1));
        if shards == 0 || cpus.is_empty() {
            return Err(PlacementError::Nothing);
        }
        if shards > cpus.len() {
            return Err(PlacementError::TooManyShards { asked: shards, cpus: cpus.len() });
        }
        Ok(Self { shards: cpus[..shards].to_vec(), writer: cpus.get(shards).copied() })
    }
}

impl std::fmt::Display for PlacementError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooManyShards { asked, cpus } => {
                write!(f, "{asked} shards are more than the {cpus} CPUs this process may use")
            }
            Self::Nothing => write!(f, "no shard to place, or no CPU to place it on"),
        }
    }
}

impl std::error::Error for PlacementError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cpus: &[usize], shards: Option<usize>, expected: (&[usize], Option<usize>)) {
        let placement = Placement::new(cpus, shards).unwrap();
        assert_eq!((placement.shards.as_slice(), placement.writer), expected);
    }

    #[test]
    fn the_writer_has_a_core_of_its_own_when_there_are_two() {
        check(&[0], None, (&[0], None));
        check(&[0, 1], None, (&[0], Some(1)));
        check(&[4, 6, 9], None, (&[4, 6], Some(9)));
        check(&[0, 1], Some(2), (&[0, 1], None));
        check(&[0, 1, 2, 3], Some(2), (&[0, 1], Some(2)));
    }

    #[test]
    fn impossible_wishes_are_refused() {
        assert!(Placement::new(&[0, 1], Some(3)).is_err());
        assert!(Placement::new(&[0], Some(0)).is_err());
        assert!(Placement::new(&[], None).is_err());
    }
}
