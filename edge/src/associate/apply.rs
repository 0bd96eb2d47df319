//! Writing a round's verdicts down.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::gallery::{Gallery, GalleryError, NewPrototype, camera_name};
use crate::types::{Decision, IdentityId, TrackletId};

use super::bars::Bars;
use super::decide::{Row, Verdict, own_mint};
use super::presence::Presence;
use super::tracklet::Track;
use super::{AssociateError, Associator};

/// Growth of a tracklet's evidence after which it gives its references anew.
const REFRESH_GROWTH: f64 = 1.6;

/// Writes the verdicts into the gallery, all or none, and then into the tracklets.
pub(super) fn apply(
    a: &mut Associator,
    rows: &[Row],
    verdicts: &[Verdict],
    bars: &Bars,
    now: f64,
    changed: &mut BTreeSet<TrackletId>,
) -> Result<(), AssociateError> {
    let Associator {
        config,
        gallery,
        tracks,
        members,
        presence,
        cameras,
        ..
    } = a;
    let quiet = rows.iter().zip(verdicts).all(|(row, verdict)| {
        let track = &tracks[&row.id];
        match verdict {
            Verdict::Keep => track.decision.identity().is_none() || !wants_write(track),
            Verdict::Unclear { .. } => track.decision.identity().is_none(),
            _ => false,
        }
    });
    // A quiet round writes nothing, so it needs neither a transaction nor a way back.
    let standings = (!quiet).then(|| Standings::of(tracks, members));
    let mut work = |gallery: &mut Gallery| -> Result<(), GalleryError> {
        let mut people = People {
            gallery,
            tracks,
            members,
            presence,
            parts: config.temporal_parts,
            changed,
        };
        // First who comes and goes, then which identities become one: whether they can depends on all who came.
        let (unions, moves): (Vec<_>, Vec<_>) = rows
            .iter()
            .zip(verdicts)
            .partition(|(_, verdict)| matches!(verdict, Verdict::Both { .. }));
        let mut abandoned = Vec::new();
        for (row, verdict) in moves {
            abandoned.extend(people.settle_row(row.id, verdict, cameras, bars, now)?);
        }
        for left in abandoned {
            people.follow(left)?;
        }
        for (row, verdict) in unions {
            if let Some(left) = people.settle_row(row.id, verdict, cameras, bars, now)? {
                people.follow(left)?;
            }
        }
        Ok(())
    };
    let result = if quiet {
        work(gallery)
    } else {
        gallery.batch(&mut work)
    };
    if result.is_err()
        && let Some(standings) = standings
    {
        standings.restore(&mut a.tracks, &mut a.members);
    }
    Ok(result?)
}

/// Who was who before a round: what the gallery rolls back is rolled back here too.
struct Standings {
    tracks: Vec<(TrackletId, Decision, usize, usize, Option<f64>)>,
    members: HashMap<IdentityId, Vec<TrackletId>>,
}

impl Standings {
    fn of(
        tracks: &BTreeMap<TrackletId, Track>,
        members: &HashMap<IdentityId, Vec<TrackletId>>,
    ) -> Self {
        Standings {
            tracks: tracks
                .values()
                .map(|t| {
                    (
                        t.id,
                        t.decision,
                        t.previous.len(),
                        t.given,
                        t.ambiguous_since,
                    )
                })
                .collect(),
            members: members.clone(),
        }
    }

    fn restore(
        self,
        tracks: &mut BTreeMap<TrackletId, Track>,
        members: &mut HashMap<IdentityId, Vec<TrackletId>>,
    ) {
        *members = self.members;
        for (id, decision, previous, given, ambiguous_since) in self.tracks {
            if let Some(track) = tracks.get_mut(&id) {
                track.decision = decision;
                track.previous.truncate(previous);
                track.given = given;
                track.ambiguous_since = ambiguous_since;
            }
        }
    }
}

/// A tracklet that went from the identity made for it to another.
struct Left {
    tracklet: TrackletId,
    old: IdentityId,
}

/// What a round writes to.
struct People<'a> {
    gallery: &'a mut Gallery,
    tracks: &'a mut BTreeMap<TrackletId, Track>,
    members: &'a mut HashMap<IdentityId, Vec<TrackletId>>,
    presence: &'a Presence,
    /// `associate.temporal_parts`.
    parts: usize,
    changed: &'a mut BTreeSet<TrackletId>,
}

impl People<'_> {
    fn settle_row(
        &mut self,
        id: TrackletId,
        verdict: &Verdict,
        cameras: &[String],
        bars: &Bars,
        now: f64,
    ) -> Result<Option<Left>, GalleryError> {
        let target = self.target(id, verdict)?;
        let before = self.tracks[&id].decision;
        let (was, is) = (before.identity(), target.identity());
        let mut left = None;
        if was != is
            && let Some(old) = was
        {
            left = self.leave(id, old, target)?;
        }
        let Some(track) = self.tracks.get_mut(&id) else {
            return Ok(None);
        };
        if was != is
            && let Some(new) = is
        {
            self.members.entry(new).or_default().push(id);
        }
        if was != is || std::mem::discriminant(&before) != std::mem::discriminant(&target) {
            self.changed.insert(id);
        }
        track.decision = target;
        track.ambiguous_since = match target {
            Decision::Ambiguous { .. } => track.ambiguous_since.or(Some(now)),
            _ => None,
        };
        record(self.gallery, cameras, track, self.parts, bars, was != is)?;
        Ok(left)
    }

    /// The decision that follows from a verdict, after what earlier rows of the round did.
    fn target(&mut self, id: TrackletId, verdict: &Verdict) -> Result<Decision, GalleryError> {
        let current = self.tracks[&id].decision;
        Ok(match *verdict {
            Verdict::Keep => current,
            Verdict::Stranger => Decision::New {
                identity: self.gallery.add_identity(self.tracks[&id].start, None)?,
            },
            Verdict::Unclear {
                best,
                score,
                margin,
            } => Decision::Ambiguous {
                best: self.gallery.resolve(best)?.unwrap_or(best),
                score,
                margin,
            },
            Verdict::Is {
                identity,
                score,
                margin,
            } => match self.gallery.resolve(identity)? {
                Some(identity) if !own_mint(&self.tracks[&id], identity) => Decision::Matched {
                    identity,
                    score,
                    margin,
                },
                _ => current,
            },
            Verdict::Both { one, other, score } => {
                let (one, other) = (self.gallery.resolve(one)?, self.gallery.resolve(other)?);
                let (Some(one), Some(other)) = (one, other) else {
                    return Ok(current);
                };
                if !self.can_unite(one, other) || !self.fits(id, one) || !self.fits(id, other) {
                    return Ok(match current.identity() {
                        Some(own) if !self.fits(id, own) => Decision::Ambiguous {
                            best: one,
                            score,
                            margin: 0.0,
                        },
                        _ => current,
                    });
                }
                let seq = |id| self.gallery.profile(id).map(|p| p.seq);
                let (into, from) = if seq(one) <= seq(other) {
                    (one, other)
                } else {
                    (other, one)
                };
                let matched = Decision::Matched {
                    identity: into,
                    score,
                    margin: 0.0,
                };
                if from != into {
                    self.unite(from, into, matched)?;
                }
                // Uniting may have brought this very tracklet to where it belongs.
                match self.tracks[&id].decision.identity() {
                    Some(now) if now == into => self.tracks[&id].decision,
                    _ => matched,
                }
            }
        })
    }

    /// Takes a tracklet from the identity it had. If that identity was made for it and it is now somebody known, says so:
    /// both identities may have been one person all along ([`People::follow`]).
    fn leave(
        &mut self,
        id: TrackletId,
        old: IdentityId,
        target: Decision,
    ) -> Result<Option<Left>, GalleryError> {
        let minted = own_mint(&self.tracks[&id], old);
        if let Some(members) = self.members.get_mut(&old) {
            members.retain(|m| *m != id);
            if members.is_empty() {
                self.members.remove(&old);
            }
        }
        if let Some(track) = self.tracks.get_mut(&id) {
            track.previous.push(old);
        }
        self.gallery.remove_prototypes_of(old, id)?;
        if minted && matches!(target, Decision::Matched { .. }) {
            return Ok(Some(Left { tracklet: id, old }));
        }
        // The caller writes its sighting under the new identity, if there is one.
        self.gallery.withdraw_sighting(id)?;
        self.gallery.drop_empty(old)?;
        Ok(None)
    }

    /// Makes the identity that a tracklet left and the one it went to one, if all that was ever taken for either can be
    /// one person.
    fn follow(&mut self, left: Left) -> Result<(), GalleryError> {
        let decision = self.tracks[&left.tracklet].decision;
        let Some(new) = decision.identity() else {
            return Ok(());
        };
        match self.gallery.resolve(left.old)? {
            Some(old) if old == new => Ok(()),
            Some(old) if self.can_unite(old, new) => self.unite(old, new, decision),
            Some(old) => self.gallery.drop_empty(old),
            None => Ok(()),
        }
    }

    fn members(&self, identity: IdentityId) -> &[TrackletId] {
        self.members.get(&identity).map_or(&[], Vec::as_slice)
    }

    /// Whether no member of an identity but the tracklet itself was elsewhere when the tracklet was seen.
    fn fits(&self, id: TrackletId, identity: IdentityId) -> bool {
        self.presence
            .can_be_one(self.tracks, &[id], self.members(identity))
    }

    /// Whether all that was taken for one identity and all that was taken for the other can be one person.
    fn can_unite(&self, one: IdentityId, other: IdentityId) -> bool {
        one == other
            || self
                .presence
                .can_be_one(self.tracks, self.members(one), self.members(other))
    }

    /// Makes `from` and `into` one identity; everybody who was `from` is told.
    fn unite(
        &mut self,
        from: IdentityId,
        into: IdentityId,
        because: Decision,
    ) -> Result<(), GalleryError> {
        self.gallery.merge(from, into)?;
        for member in self.members.remove(&from).unwrap_or_default() {
            self.members.entry(into).or_default().push(member);
            let Some(track) = self.tracks.get_mut(&member) else {
                continue;
            };
            track.previous.push(from);
            track.decision = match (track.decision, because) {
                (Decision::Matched { score, margin, .. }, _)
                | (_, Decision::Matched { score, margin, .. }) => Decision::Matched {
                    identity: into,
                    score,
                    margin,
                },
                (other, _) => other,
            };
            self.changed.insert(member);
        }
        Ok(())
    }
}

/// Whether the gallery's rows about a tracklet are due for renewal.
fn wants_write(track: &Track) -> bool {
    track.ended || track.count as f64 >= track.given as f64 * REFRESH_GROWTH
}

/// Writes a claimed tracklet's sighting, and its references if it is sure enough.
fn record(
    gallery: &mut Gallery,
    cameras: &[String],
    track: &mut Track,
    parts: usize,
    bars: &Bars,
    fresh: bool,
) -> Result<(), GalleryError> {
    let Some(identity) = track.decision.identity() else {
        return Ok(());
    };
    if !fresh && !wants_write(track) {
        return Ok(());
    }
    let camera = camera_name(cameras, track.camera);
    let (word, score, gives) = match track.decision {
        Decision::Matched { score, .. } => ("matched", Some(score), score >= bars.enrich),
        _ => ("new", None, true),
    };
    gallery.put_sighting(
        identity,
        track.id,
        camera,
        track.start,
        track.end,
        word,
        score,
    )?;
    track.given = track.count;
    if gives {
        gallery.remove_prototypes_of(identity, track.id)?;
        for reference in track.references(parts) {
            gallery.add_prototype(
                identity,
                NewPrototype {
                    embedding: &reference.embedding,
                    camera,
                    time: reference.time,
                    quality: reference.quality,
                    tracklet: track.id,
                },
            )?;
        }
    }
    Ok(())
}
