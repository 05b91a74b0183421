//! What a node is to probe: endpoints turned into [`Plan`]s as they come in, page by page, and dealt to the shards.
//!
//! An endpoint as people know it (name, tags, URL) takes three times what its plan takes. Turned into one at once,
//! a million of them are never in memory together; and pages, unlike one long vector, are given back as they are
//! consumed.

use std::{fmt, vec};

use super::plans::Planner;
use crate::clock::Micros;
use crate::endpoint::{FieldError, StoredEndpoint, shard_of};
use crate::matcher::Matcher;
use crate::probe::Plan;
use crate::sample::EndpointId;

/// One endpoint, ready to be given to a shard.
#[derive(Debug)]
pub struct Watch {
    /// Its key in the store.
    pub id: EndpointId,
    /// From slot to slot.
    pub interval: Micros,
    /// What to do at each.
    pub plan: Plan,
}

/// Everything a node is to probe, or one shard of it.
#[derive(Debug, Default)]
pub struct Roster {
    pages: Vec<Vec<Watch>>,
}

/// Which endpoint cannot be probed as it says, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The endpoint's name.
    pub endpoint: String,
    /// What is wrong with it.
    pub error: FieldError,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "endpoint {:?}: {}", self.endpoint, self.error)
    }
}

impl std::error::Error for PlanError {}

/// Who gets an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deal {
    /// The shard that its id names, whatever else is in the table: it stays there.
    ById,
    /// Each shard in turn.
    InTurn,
}

impl Roster {
    /// Adds a page of endpoints.
    ///
    /// # Errors
    /// The first of them that cannot be probed as it says.
    pub fn extend(
        &mut self,
        endpoints: impl IntoIterator<Item = StoredEndpoint>,
        planner: &mut Planner,
    ) -> Result<(), PlanError> {
        let endpoints = endpoints.into_iter();
        // Not collected: that would keep the vector of the endpoints for the plans, which need a third of it.
        let mut page = Vec::with_capacity(endpoints.size_hint().0);
        for StoredEndpoint { id, endpoint } in endpoints {
            let plan = planner.plan(&endpoint);
            let plan = plan.map_err(|error| PlanError { endpoint: endpoint.name, error })?;
            page.push(Watch { id, interval: endpoint.interval, plan });
        }
        self.pages.push(page);
        Ok(())
    }

    /// Adds one more.
    pub fn push(&mut self, watch: Watch) {
        self.pages.push(vec![watch]);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.iter().map(Vec::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &Watch> {
        self.pages.iter().flatten()
    }

    /// Bytes that bodies may take for themselves if one of every endpoint is in flight, and of how many endpoints they
    /// take any.
    #[must_use]
    pub fn body_bytes_max(&self) -> (usize, usize) {
        let per_body = |watch: &Watch| {
            let matcher = watch.plan.profile.expect.body.as_deref();
            matcher.map_or(0, Matcher::bytes_per_body_max)
        };
        let taking = self.iter().map(per_body).filter(|bytes| *bytes > 0);
        taking.fold((0, 0), |(sum, count), bytes| (sum + bytes, count + 1))
    }

    /// Deals them to `shards`.
    #[must_use]
    pub fn deal(self, shards: usize, deal: Deal) -> Vec<Self> {
        let mut dealt: Vec<Self> = (0..shards).map(|_| Self::default()).collect();
        if let [whole] = dealt.as_mut_slice() {
            *whole = self;
            return dealt;
        }
        let mut turn = (0..shards).cycle();
        for page in self.pages {
            let mut parts: Vec<Vec<Watch>> = (0..shards).map(|_| Vec::new()).collect();
            for watch in page {
                let shard = match deal {
                    Deal::ById => shard_of(watch.id, shards),
                    Deal::InTurn => turn.next().unwrap_or_default(),
                };
                parts[shard].push(watch);
            }
            dealt.iter_mut().zip(parts).for_each(|(roster, part)| roster.pages.push(part));
        }
        dealt
    }
}

impl IntoIterator for Roster {
    type Item = Watch;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter { left: self.len(), page: Vec::new().into_iter(), pages: self.pages.into_iter() }
    }
}

/// Endpoints in the order in which they came; a page is freed when its last one is taken.
#[derive(Debug)]
pub struct IntoIter {
    page: vec::IntoIter<Watch>,
    pages: vec::IntoIter<Vec<Watch>>,
    left: usize,
}

impl Iterator for IntoIter {
    type Item = Watch;

    fn next(&mut self) -> Option<Watch> {
        loop {
            if let Some(watch) = self.page.next() {
                self.left -= 1;
                return Some(watch);
            }
            self.page = self.pages.next()?.into_iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for IntoIter {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Draft;
    use crate::{dns, tls};

    fn roster(pages: &[std::ops::Range<i32>]) -> Roster {
        let draft = Draft {
            name: Some("a".to_owned()),
            url: Some("http://127.0.0.1/".to_owned()),
            ..Draft::default()
        };
        let endpoint = draft.validate(&Draft::default()).unwrap();
        let stored = |id| StoredEndpoint { id: EndpointId(id), endpoint: endpoint.clone() };
        let mut roster = Roster::default();
        let mut planner = Planner::new(tls::Roots::bundled(), dns::Family::PreferV4, None);
        pages.iter().for_each(|ids| roster.extend(ids.clone().map(stored), &mut planner).unwrap());
        roster
    }

    fn ids(roster: Roster) -> Vec<i32> {
        let iter = roster.into_iter();
        let count = iter.len();
        let ids: Vec<i32> = iter.map(|watch| watch.id.0).collect();
        assert_eq!(ids.len(), count, "the length is exact");
        ids
    }

    #[test]
    fn endpoints_keep_their_order_across_pages() {
        assert_eq!(ids(roster(&[1..4, 9..9, 4..6])), [1, 2, 3, 4, 5]);
        assert!(roster(&[]).is_empty() && roster(&[2..2, 3..3]).is_empty());
    }

    #[test]
    fn every_endpoint_is_dealt_to_one_shard() {
        for (shards, deal) in [(1, Deal::ById), (2, Deal::ById), (3, Deal::InTurn), (7, Deal::ById)] {
            let dealt: Vec<Vec<i32>> =
                roster(&[0..50, 50..51]).deal(shards, deal).into_iter().map(ids).collect();
            assert_eq!(dealt.len(), shards);
            if deal == Deal::ById {
                let at_home = |(shard, part): (usize, &Vec<i32>)| {
                    part.iter().all(|id| shard_of(EndpointId(*id), shards) == shard)
                };
                assert!(dealt.iter().enumerate().all(at_home));
            } else {
                assert!(dealt.iter().all(|part| part.len() == 51 / shards));
            }
            let mut all = dealt.concat();
            all.sort_unstable();
            assert_eq!(all, (0..51).collect::<Vec<_>>());
        }
    }
}
