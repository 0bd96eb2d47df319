//! Who is on the images, who took them, and which answers a query has.

use super::error::EvalError;

/// Identity of images that are neither right nor wrong.
pub const JUNK: i64 = -1;
/// Identity of people who are in the gallery but never asked for: wrong for every query, and not one person.
pub const DISTRACTOR: i64 = 0;

/// Who is on the images, and which cameras took them.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// Identity per image; [`JUNK`] is ignored.
    pub pids: &'a [i64],
    /// Camera per image.
    pub cameras: &'a [i64],
}

/// Features of labelled images.
#[derive(Clone, Copy, Debug)]
pub struct Embeddings<'a> {
    /// Row-major, one row per image; of any length, compared by cosine.
    pub features: &'a [f32],
    /// Columns.
    pub width: usize,
    /// Labels.
    pub labels: Labels<'a>,
}

/// Labels of one set: as many cameras as people, and at least one.
pub(super) fn check(set: &'static str, labels: &Labels) -> Result<(), EvalError> {
    if labels.pids.len() != labels.cameras.len() {
        return Err(EvalError::Sizes {
            set,
            features: 0,
            width: 0,
            pids: labels.pids.len(),
            cameras: labels.cameras.len(),
        });
    }
    if labels.pids.is_empty() {
        return Err(EvalError::Empty { set });
    }
    Ok(())
}

/// Features of one set: a matrix with one row per label.
pub(super) fn check_rows(set: &'static str, e: &Embeddings) -> Result<(), EvalError> {
    check(set, &e.labels)?;
    if e.width == 0 || e.features.len() != e.width * e.labels.pids.len() {
        return Err(EvalError::Sizes {
            set,
            features: e.features.len(),
            width: e.width,
            pids: e.labels.pids.len(),
            cameras: e.labels.cameras.len(),
        });
    }
    Ok(())
}

/// Whether the protocol leaves gallery image `g` out of query `q`'s list: junk, or the same person in the same camera.
pub(super) fn ignored(query: &Labels, q: usize, gallery: &Labels, g: usize) -> bool {
    gallery.pids[g] == JUNK
        || (gallery.pids[g] == query.pids[q] && gallery.cameras[g] == query.cameras[q])
}

/// Where each identity is in the gallery.
pub(super) struct Answers<'a> {
    gallery: Labels<'a>,
    /// Indices sorted by identity, then index.
    by_pid: Vec<usize>,
    junk: Vec<usize>,
}

impl<'a> Answers<'a> {
    pub(super) fn of(gallery: &Labels<'a>) -> Self {
        let mut by_pid: Vec<usize> = (0..gallery.pids.len())
            .filter(|g| gallery.pids[*g] != JUNK)
            .collect();
        by_pid.sort_by_key(|g| gallery.pids[*g]);
        let junk = (0..gallery.pids.len())
            .filter(|g| gallery.pids[*g] == JUNK)
            .collect();
        Answers {
            gallery: *gallery,
            by_pid,
            junk,
        }
    }

    /// Right answers of query `q` by index, into `right`; takes what is ignored out of `scores`.
    pub(super) fn right(
        &self,
        query: &Labels,
        q: usize,
        right: &mut Vec<usize>,
        scores: &mut [f32],
    ) {
        right.clear();
        if query.pids[q] == JUNK {
            return;
        }
        for &g in &self.junk {
            scores[g] = f32::NEG_INFINITY;
        }
        let pid = query.pids[q];
        let start = self.by_pid.partition_point(|g| self.gallery.pids[*g] < pid);
        for &g in self.by_pid[start..]
            .iter()
            .take_while(|g| self.gallery.pids[**g] == pid)
        {
            if self.gallery.cameras[g] == query.cameras[q] {
                scores[g] = f32::NEG_INFINITY;
            } else {
                right.push(g);
            }
        }
    }
}
