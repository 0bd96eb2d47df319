//! Which cameras keep a person's identity between them, and which do not.
//!
//! Boxes are matched in each camera by itself, one to one in a frame, by the rules of CLEAR MOT at [`super::MIN_IOU`].
//! In a camera a person *bears* the identity that it was matched with most often (of equals the one that came first),
//! and an identity *shows* the person that it was matched with most often.

use std::collections::HashMap;

use serde::Serialize;

use super::frames::{FramePair, key, unkey};
use super::ratio;

/// How identities hold between two cameras, or inside one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PairScores {
    /// A camera, by place.
    pub a: usize,
    /// The other camera, a later one, or the same.
    pub b: usize,
    /// True people with boxes in both; in one camera with itself: with two boxes or more.
    pub people: usize,
    /// Those of them that were found in both; in one camera: found twice or more.
    pub found: usize,
    /// Those of them that bear one identity in both; in one camera: that never had another.
    pub linked: usize,
    /// `linked / people`; absent without people.
    pub link_recall: Option<f64>,
    /// Result ids with boxes in both; in one camera with itself: with two boxes or more.
    pub joined: usize,
    /// Those of them that show the same person in both; in one camera: that lie on one person twice or more and on
    /// nobody else. What lies on nobody is not right.
    pub right: usize,
    /// `right / joined`; absent where nothing is joined.
    pub link_precision: Option<f64>,
}

/// What became of a person, or of a result id, in one camera.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    boxes: usize,
    matched: usize,
    /// Of the other kind, how many it was matched with.
    partners: usize,
    /// The one it was matched with most often, and how often.
    most: Option<(u32, usize)>,
    /// When that match came first.
    since: usize,
}

impl Seen {
    fn add(&mut self, partner: u32, matches: usize, since: usize) {
        self.matched += matches;
        self.partners += 1;
        let better = match self.most {
            None => true,
            Some((_, most)) => matches > most || (matches == most && since < self.since),
        };
        if better {
            self.most = Some((partner, matches));
            self.since = since;
        }
    }

    fn partner(&self) -> Option<u32> {
        self.most.map(|(partner, _)| partner)
    }
}

/// Collects what happened in one camera.
#[derive(Default)]
pub(super) struct CameraLinks {
    people: HashMap<u32, Seen>,
    identities: HashMap<u32, Seen>,
    /// How often a person and an identity were matched, and which match of the camera was their first.
    matches: HashMap<u64, (usize, usize)>,
    count: usize,
}

impl CameraLinks {
    /// One frame, and which true box was found by which result box.
    pub(super) fn update(&mut self, pair: &FramePair, matched: &[(usize, usize)]) {
        for person in &pair.truth {
            self.people.entry(*person).or_default().boxes += 1;
        }
        for identity in &pair.results {
            self.identities.entry(*identity).or_default().boxes += 1;
        }
        for (i, j) in matched {
            self.count += 1;
            let key = key(pair.truth[*i], pair.results[*j]);
            self.matches.entry(key).or_insert((0, self.count)).0 += 1;
        }
    }

    /// To be called after the last frame.
    pub(super) fn finish(mut self) -> Self {
        for (key, (matches, since)) in self.matches.drain() {
            let (person, identity) = unkey(key);
            let seen = self.people.entry(person).or_default();
            seen.add(identity, matches, since);
            let seen = self.identities.entry(identity).or_default();
            seen.add(person, matches, since);
        }
        self
    }
}

/// All pairs of cameras, each camera with itself among them, in the cameras' order.
pub(super) fn pairs(cameras: &[CameraLinks]) -> Vec<PairScores> {
    let mut all = Vec::with_capacity(cameras.len() * (cameras.len() + 1) / 2);
    for a in 0..cameras.len() {
        all.push(inside(a, &cameras[a]));
        for b in a + 1..cameras.len() {
            let (people, found, linked) = agreement(&cameras[a].people, &cameras[b].people);
            let (joined, _, right) = agreement(&cameras[a].identities, &cameras[b].identities);
            all.push(scores((a, b), [people, found, linked], [joined, right]));
        }
    }
    all
}

/// How many are in both, were matched in both, and were matched with the same most often.
fn agreement(a: &HashMap<u32, Seen>, b: &HashMap<u32, Seen>) -> (usize, usize, usize) {
    let (mut both, mut matched, mut same) = (0, 0, 0);
    for (id, in_a) in a {
        let Some(in_b) = b.get(id) else { continue };
        both += 1;
        if let (Some(x), Some(y)) = (in_a.partner(), in_b.partner()) {
            matched += 1;
            same += usize::from(x == y);
        }
    }
    (both, matched, same)
}

fn inside(place: usize, camera: &CameraLinks) -> PairScores {
    let count = |all: &HashMap<u32, Seen>, wanted: fn(&Seen) -> bool| {
        all.values()
            .filter(|seen| seen.boxes > 1 && wanted(seen))
            .count()
    };
    let again = |seen: &Seen| seen.matched > 1;
    let faithful = |seen: &Seen| seen.matched > 1 && seen.partners == 1;
    let (people, identities) = (&camera.people, &camera.identities);
    scores(
        (place, place),
        [
            count(people, |_| true),
            count(people, again),
            count(people, faithful),
        ],
        [count(identities, |_| true), count(identities, faithful)],
    )
}

fn scores(
    (a, b): (usize, usize),
    [people, found, linked]: [usize; 3],
    [joined, right]: [usize; 2],
) -> PairScores {
    let some = |part, whole| (whole > 0).then(|| ratio(part, whole));
    PairScores {
        a,
        b,
        people,
        found,
        linked,
        link_recall: some(linked, people),
        joined,
        right,
        link_precision: some(right, joined),
    }
}

/// Identity switches across cameras: every camera in which a person was found votes for the identity that it bears
/// there, with as many votes as it has matches of the two; the identity with most votes (of equals the one of more
/// cameras) is the person's own, and every camera that voted for another one is a switch.
pub(super) fn switches_across(cameras: &[CameraLinks]) -> usize {
    let mut votes: HashMap<u32, Vec<(u32, usize)>> = HashMap::new();
    for camera in cameras {
        for (person, seen) in &camera.people {
            votes.entry(*person).or_default().extend(seen.most);
        }
    }
    votes
        .into_values()
        .map(|votes| {
            let mut tally: HashMap<u32, (usize, usize)> = HashMap::new();
            for (identity, matches) in &votes {
                let (sum, cameras) = tally.entry(*identity).or_default();
                *sum += matches;
                *cameras += 1;
            }
            votes.len() - tally.into_values().max().map_or(0, |(_, cameras)| cameras)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::{Row, score_site};

    /// A box of `id` at its place, in frames `from..to`.
    fn walk(id: i64, place: i64, from: u64, to: u64) -> Vec<Row> {
        (from..to)
            .map(|frame| Row {
                frame,
                id,
                left: 50.0 * place as f64,
                top: 0.0,
                width: 20.0,
                height: 40.0,
                confidence: 1.0,
            })
            .collect()
    }

    fn pair(site: &super::super::SiteScores, a: usize, b: usize) -> [usize; 5] {
        let found = site.pairs.iter().find(|p| (p.a, p.b) == (a, b));
        found.map_or([usize::MAX; 5], |p| {
            [p.people, p.found, p.linked, p.joined, p.right]
        })
    }

    #[test]
    fn every_pair_of_cameras_tells_what_it_lost_and_what_it_mixed_up() {
        // Person 1 goes through all cameras, 2 through the first and the last, 3 is in the second only.
        let truth = [
            [walk(1, 1, 1, 11), walk(2, 2, 1, 11)].concat(),
            [walk(1, 1, 21, 31), walk(3, 3, 21, 31)].concat(),
            [walk(1, 1, 41, 51), walk(2, 2, 41, 51)].concat(),
        ];
        // In the second camera 1 is lost after three frames and 3 taken for 2; in the last, 2 is not found, and its
        // identity lies on nobody.
        let results = [
            [walk(10, 1, 1, 11), walk(20, 2, 1, 11)].concat(),
            [
                walk(10, 1, 21, 24),
                walk(30, 1, 24, 31),
                walk(20, 3, 21, 31),
            ]
            .concat(),
            [walk(10, 1, 41, 51), walk(20, 7, 41, 51)].concat(),
        ];
        let cameras: Vec<(&[Row], &[Row])> = truth
            .iter()
            .zip(&results)
            .map(|(t, r)| (t.as_slice(), r.as_slice()))
            .collect();
        let site = score_site(&cameras);
        assert_eq!(site.pairs.len(), 6);
        assert_eq!(pair(&site, 0, 0), [2, 2, 2, 2, 2]);
        assert_eq!(pair(&site, 0, 1), [1, 1, 0, 2, 1]);
        assert_eq!(pair(&site, 0, 2), [2, 1, 1, 2, 1]);
        assert_eq!(pair(&site, 1, 1), [2, 2, 1, 3, 3]);
        assert_eq!(pair(&site, 1, 2), [1, 1, 0, 2, 1]);
        assert_eq!(pair(&site, 2, 2), [2, 1, 1, 2, 1]);
        assert_eq!(site.pairs[2].link_recall, Some(0.5));
        assert_eq!(
            site.id_switches_within_cameras, 1,
            "the second camera lost 1 once"
        );
        assert_eq!(
            site.id_switches_across_cameras, 1,
            "1 bears another identity in the second camera"
        );
    }

    #[test]
    fn the_identity_of_most_boxes_is_a_persons_own() {
        let truth = walk(1, 1, 1, 31);
        let short = walk(1, 1, 1, 6);
        let (x, y) = (walk(7, 1, 1, 31), walk(8, 1, 1, 6));
        let against = |all: &[(&[Row], &[Row])]| score_site(all).id_switches_across_cameras;
        let long_and_two_short = [(&*truth, &*x), (&*short, &*y), (&*short, &*y)];
        assert_eq!(
            against(&long_and_two_short),
            2,
            "thirty boxes outvote twice five"
        );
        assert_eq!(against(&[(&*short, &*y), (&*short, &x[..5])]), 1);
        assert_eq!(
            against(&[(&*truth, &*x)]),
            0,
            "one camera has nobody to contradict"
        );
        assert_eq!(
            against(&[(&*truth, &*x), (&*short, &[])]),
            0,
            "not found is not switched"
        );
    }

    #[test]
    fn nobody_in_both_is_no_recall_of_zero() {
        let (one, two) = (walk(1, 1, 1, 5), walk(2, 1, 1, 5));
        let site = score_site(&[(&one, &one), (&two, &two)]);
        assert_eq!(pair(&site, 0, 1), [0; 5]);
        assert_eq!(
            (site.pairs[1].link_recall, site.pairs[1].link_precision),
            (None, None)
        );
    }
}
