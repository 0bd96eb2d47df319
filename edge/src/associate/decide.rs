//! One round of decisions.

use std::collections::{BTreeMap, BTreeSet};

use crate::track::hungarian;
use crate::types::{Decision, IdentityId, TrackletId};

use super::apply::apply;
use super::bars::Bars;
use super::similarity::{self, Candidate};
use super::tracklet::Track;
use super::{AssociateError, Associator};

/// A tracklet in this round.
pub(super) struct Row {
    pub(super) id: TrackletId,
    /// Identities it may be, best first; impossible ones are left out.
    candidates: Vec<Candidate>,
    /// Identities it resembles and cannot be.
    impossible: Vec<Candidate>,
    /// Its box lies on that of an older tracklet: it may be the same person boxed twice, so nobody is made of it.
    shadowed: bool,
}

/// What the round says about a row.
pub(super) enum Verdict {
    /// Nothing changes.
    Keep,
    /// It is this identity.
    Is {
        identity: IdentityId,
        score: f32,
        margin: f32,
    },
    /// Like somebody, but not enough, or like two.
    Unclear {
        best: IdentityId,
        score: f32,
        margin: f32,
    },
    /// Two identities that are one person, this one.
    Both {
        one: IdentityId,
        other: IdentityId,
        score: f32,
    },
    /// Unlike everybody.
    Stranger,
}

/// Decides about the open tracklets; returns those whose decision changed, also settled ones of merged identities.
pub(super) fn decide(
    a: &mut Associator,
    open: &[TrackletId],
    bars: &Bars,
    now: f64,
) -> Result<BTreeSet<TrackletId>, AssociateError> {
    // Where cameras share ground a person may be in two of them: those decide one after the other.
    let mut groups: BTreeMap<usize, Vec<TrackletId>> = BTreeMap::new();
    for id in open {
        let group = if a.presence.overlapping() {
            a.tracks[id].camera
        } else {
            0
        };
        groups.entry(group).or_default().push(*id);
    }
    let mut changed = BTreeSet::new();
    for group in groups.into_values() {
        let rows: Vec<Row> = group.iter().map(|id| row(a, *id, &group, bars)).collect();
        let given = assign(a, &rows, bars);
        let verdicts: Vec<Verdict> = (0..rows.len())
            .map(|i| verdict(a, &rows, &given, i, bars, now))
            .collect();
        apply(a, &rows, &verdicts, bars, now, &mut changed)?;
    }
    Ok(changed)
}

/// Whether a tracklet cannot be an identity because of where that identity was. `open` tracklets only block with an
/// identity that rests on them alone: who recognised somebody can still be corrected in this round.
fn impossible(a: &Associator, track: &Track, identity: IdentityId, open: &[TrackletId]) -> bool {
    a.members.get(&identity).is_some_and(|members| {
        members.iter().any(|m| {
            let other = &a.tracks[m];
            let holds = !open.contains(m) || matches!(other.decision, Decision::New { .. });
            *m != track.id && holds && a.presence.conflict(track, other)
        })
    })
}

fn row(a: &Associator, id: TrackletId, open: &[TrackletId], bars: &Bars) -> Row {
    let track = &a.tracks[&id];
    let parts = a.config.temporal_parts;
    let (impossible, mut candidates): (Vec<Candidate>, Vec<Candidate>) =
        similarity::candidates(&a.gallery, &a.cameras, track, parts, bars)
            .into_iter()
            .partition(|c| impossible(a, track, c.identity, open));
    similarity::agreement(&mut candidates, track, parts, bars);
    let shadowed = open.iter().map(|o| &a.tracks[o]).any(|other| {
        let smaller = track.last_box.area().min(other.last_box.area());
        other.camera == track.camera
            && (other.start, other.id) < (track.start, track.id)
            && (other.end - track.end).abs() < 1.0
            && track.last_box.intersection(&other.last_box) > 0.5 * smaller
    });
    Row {
        id,
        candidates,
        impossible,
        shadowed,
    }
}

/// How similar a tracklet must be to a candidate, given what is claimed already.
fn bar(a: &Associator, track: &Track, candidate: &Candidate, bars: &Bars) -> f32 {
    let current = track.decision.identity();
    if current == Some(candidate.identity) {
        // Staying is easier than coming, or a decision would flicker.
        return bars.match_score - bars.margin;
    }
    let alone = |id: IdentityId| a.members.get(&id).is_none_or(|m| m.len() <= 1);
    match (track.decision, current) {
        // To give up an identity that others rely on is to merge two people.
        (Decision::New { .. }, Some(own)) if !alone(own) => bars.enrich,
        // Few looks, and no more to come.
        _ if !a.ready(track) => bars.enrich,
        _ => bars.match_score,
    }
}

/// The best choice of identities for tracklets: position in each row's candidates, or none. One to one first; then those
/// left over may share an identity with a tracklet that they can share it with (one ended, the next began).
fn assign(a: &Associator, rows: &[Row], bars: &Bars) -> Vec<Option<usize>> {
    let mut columns: Vec<IdentityId> = Vec::new();
    for row in rows {
        for c in &row.candidates {
            if !columns.contains(&c.identity) {
                columns.push(c.identity);
            }
        }
    }
    let mut given: Vec<Option<usize>> = vec![None; rows.len()];
    loop {
        let left: Vec<usize> = (0..rows.len()).filter(|r| given[*r].is_none()).collect();
        // One column per row besides: to be nobody costs as much as a similarity that just reaches the bar.
        let width = columns.len() + left.len();
        let mut cost = vec![f32::INFINITY; left.len() * width];
        for (l, &r) in left.iter().enumerate() {
            let track = &a.tracks[&rows[r].id];
            cost[l * width + columns.len() + l] = 1.0 - bars.match_score;
            for c in &rows[r].candidates {
                if c.score < bar(a, track, c, bars) || taken(a, rows, &given, r, c.identity) {
                    continue;
                }
                let stays = track.decision.identity() == Some(c.identity);
                let bonus = if stays { bars.margin } else { 0.0 };
                if let Some(column) = columns.iter().position(|id| *id == c.identity) {
                    cost[l * width + column] = 1.0 - c.score - bonus;
                }
            }
        }
        let mut progress = false;
        for (l, column) in hungarian::solve(&cost, left.len(), width)
            .into_iter()
            .enumerate()
        {
            if let Some(identity) = column.and_then(|c| columns.get(c)) {
                let candidates = &rows[left[l]].candidates;
                given[left[l]] = candidates.iter().position(|c| c.identity == *identity);
                progress = true;
            }
        }
        if !progress {
            return given;
        }
    }
}

/// Whether an identity was given in this round to a tracklet that keeps row `r` from having it.
fn taken(
    a: &Associator,
    rows: &[Row],
    given: &[Option<usize>],
    r: usize,
    identity: IdentityId,
) -> bool {
    let track = &a.tracks[&rows[r].id];
    given.iter().enumerate().any(|(o, choice)| {
        o != r
            && choice.is_some_and(|c| rows[o].candidates[c].identity == identity)
            && a.presence.conflict(track, &a.tracks[&rows[o].id])
    })
}

fn verdict(
    a: &Associator,
    rows: &[Row],
    given: &[Option<usize>],
    r: usize,
    bars: &Bars,
    now: f64,
) -> Verdict {
    let row = &rows[r];
    let track = &a.tracks[&row.id];
    let current = track.decision.identity();
    // What somebody seen at the same time has a better claim to.
    let lost = current.filter(|own| {
        taken(a, rows, given, r, *own) || row.impossible.iter().any(|c| c.identity == *own)
    });
    let free = |c: &&Candidate| !taken(a, rows, given, r, c.identity);
    let runner_up = |except: IdentityId| {
        row.candidates
            .iter()
            .filter(free)
            .find(|c| c.identity != except && !own_mint(track, c.identity))
    };
    if let Some(choice) = given[r] {
        let best = &row.candidates[choice];
        let second = runner_up(best.identity);
        let margin = best.score - second.map_or(-1.0, |s| s.score);
        let (identity, score) = (best.identity, best.score);
        if (margin >= bars.margin && best.agreement >= 0.5) || current == Some(identity) {
            return Verdict::Is {
                identity,
                score,
                margin,
            };
        }
        // Torn between two identities that may well be one person, met twice before anybody could tell.
        let of = |id: IdentityId| a.members.get(&id).map_or(&[][..], Vec::as_slice);
        if let Some(second) = second
            && second.score >= bars.match_score
            && best.agreement + second.agreement >= 0.5
            && a.presence
                .can_be_one(&a.tracks, of(identity), of(second.identity))
            && similarity::between(&a.gallery, identity, second.identity, bars) >= bars.match_score
        {
            return Verdict::Both {
                one: identity,
                other: second.identity,
                score,
            };
        }
        if current.is_some() && lost.is_none() {
            return Verdict::Keep;
        }
        return Verdict::Unclear {
            best: identity,
            score,
            margin,
        };
    }
    let unlike = matches!(track.decision, Decision::Matched { .. })
        && row
            .candidates
            .iter()
            .any(|c| current == Some(c.identity) && c.score < bars.mint);
    let stays = current.is_some() && !unlike;
    let nobody_new = !a.ready(track) || row.shadowed;
    if lost.is_none() && (stays || nobody_new) {
        return Verdict::Keep;
    }
    if let (Some(own), true) = (lost, nobody_new) {
        // Nobody may be made of this one, and what it was is gone.
        let mut known = row.candidates.iter().chain(&row.impossible);
        let score = known
            .find(|c| c.identity == own)
            .map_or(bars.mint, |c| c.score);
        return Verdict::Unclear {
            best: own,
            score,
            margin: 0.0,
        };
    }
    match row.candidates.iter().find(free) {
        Some(c) if c.score > bars.mint => {
            let waited = track
                .ambiguous_since
                .is_some_and(|since| now - since >= a.config.ambiguous_secs);
            if c.score < bars.match_score && (waited || track.ended) {
                Verdict::Stranger
            } else {
                Verdict::Unclear {
                    best: c.identity,
                    score: c.score,
                    margin: c.score - runner_up(c.identity).map_or(-1.0, |s| s.score),
                }
            }
        }
        _ => Verdict::Stranger,
    }
}

/// Whether an identity was made for this very tracklet.
pub(super) fn own_mint(track: &Track, identity: IdentityId) -> bool {
    matches!(track.decision, Decision::New { identity: own } if own == identity)
}
