//! What is known of the lives of kernels. Two tables are merged row by row to the later one, so it does not matter in which order kernels hear of
//! what, or how often: all come to the same table.

use alloc::collections::BTreeMap;

use base::KernelId;

/// Where an incarnation is in its life. Later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Somebody starts it.
    Booting,
    /// It did not come up, or whoever started it died; it may join all the same.
    Failed,
    /// It is or was a member.
    Up,
    /// It ends its processes.
    Stopping,
    /// It died.
    Dead,
    /// It stopped in good order.
    Off,
    /// It died and could not be stopped.
    Lost,
}

/// The latest incarnation of an index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Row {
    /// Its incarnation; only grows.
    pub incarnation: u32,
    /// How far it is.
    pub phase: Phase,
    /// Who starts it, while it is [`Phase::Booting`].
    pub by: Option<KernelId>,
}

/// The rows by index; an index that was never started has none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rows(BTreeMap<u16, Row>);

impl Rows {
    /// Nothing is known.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// What is known of an index.
    pub fn get(&self, index: u16) -> Option<Row> {
        self.0.get(&index).copied()
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = (u16, Row)> + '_ {
        self.0.iter().map(|(index, row)| (*index, *row))
    }

    /// Learns a row; whether it was news.
    pub fn merge(&mut self, index: u16, row: Row) -> bool {
        match self.0.get_mut(&index) {
            Some(known) if *known >= row => false,
            Some(known) => {
                *known = row;
                true
            }
            None => {
                self.0.insert(index, row);
                true
            }
        }
    }

    /// Learns how far an incarnation is.
    pub fn reach(&mut self, kernel: KernelId, phase: Phase) -> bool {
        self.merge(kernel.index, Row { incarnation: kernel.incarnation, phase, by: None })
    }
}

#[cfg(test)]
mod tests {
    use base::KernelId;
    use proptest::prelude::{Strategy, prop_assert_eq, proptest};

    use super::{Phase, Row, Rows};

    const PHASES: [Phase; 7] =
        [Phase::Booting, Phase::Failed, Phase::Up, Phase::Stopping, Phase::Dead, Phase::Off, Phase::Lost];

    fn row() -> impl Strategy<Value = (u16, Row)> {
        (0u16..3, 1u32..4, 0usize..7).prop_map(|(index, incarnation, phase)| {
            let by = (phase == 0).then_some(KernelId { index: 9, incarnation });
            (index, Row { incarnation, phase: PHASES[phase], by })
        })
    }

    proptest! {
        #[test]
        fn the_order_of_news_does_not_matter(news in proptest::collection::vec(row(), 0..20), turn in 0usize..20) {
            let (mut one, mut other) = (Rows::new(), Rows::new());
            for (index, row) in &news {
                one.merge(*index, *row);
            }
            for i in 0..news.len() {
                let (index, row) = news[(i + turn) % news.len()];
                other.merge(index, row);
                prop_assert_eq!(other.merge(index, row), false);
            }
            prop_assert_eq!(one, other);
        }
    }
}
