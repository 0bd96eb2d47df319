//! Per camera: where nobody is looked for, and how tall a person must be at least.
//!
//! A mask is polygons in fractions of the frame, so it survives another resolution. A detection is dropped if its foot
//! point, the middle of its lower edge, lies in a polygon or on its border. The border counts, because people whom the
//! frame cuts off stand exactly on its lower edge.
//!
//! Corners and foot points are rounded to a grid of 2^-24 of the frame and compared in whole numbers: the rule has no
//! tolerance, and the same box gives the same answer on every machine.

use crate::types::{Detection, Ltrb};

/// Grid steps across the frame.
const GRID: f64 = (1 << 24) as f64;

/// Position on the grid, (x, y).
type Point = [i64; 2];

/// A polygon that is no area.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("polygon {polygon}: {reason}")]
pub struct MaskError {
    /// Which one, from 1.
    pub polygon: usize,
    /// What is wrong with it, and the remedy.
    pub reason: String,
}

/// Areas of a camera's picture where nobody is looked for.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    polygons: Vec<Vec<Point>>,
}

impl Mask {
    /// From polygons of corners (x, y), each 0 to 1 from the left and from the top of the frame. A first corner that is
    /// repeated at the end is taken as one.
    ///
    /// # Errors
    /// If a polygon has fewer than three corners, a corner outside the frame, no area, or edges that meet otherwise than
    /// one after the other.
    pub fn new(polygons: &[Vec<[f64; 2]>]) -> Result<Self, MaskError> {
        let polygons = polygons
            .iter()
            .enumerate()
            .map(|(index, corners)| {
                polygon(corners).map_err(|reason| MaskError {
                    polygon: index + 1,
                    reason,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Mask { polygons })
    }

    /// Whether there is nothing to drop.
    pub fn is_empty(&self) -> bool {
        self.polygons.is_empty()
    }

    /// Whether a position, in fractions of the frame, lies in a polygon or on its border.
    pub fn covers(&self, x: f64, y: f64) -> bool {
        let point = [on_grid(x), on_grid(y)];
        self.polygons.iter().any(|corners| inside(corners, point))
    }
}

/// What of a camera's detections counts.
#[derive(Clone, Debug, Default)]
pub struct CameraFilter {
    /// Where nobody is looked for.
    pub mask: Mask,
    /// Lower boxes are dropped, pixels of the frame.
    pub min_height: f32,
}

impl CameraFilter {
    /// Drops what doesn't count in a frame of (width, height) pixels; the rest keeps its order.
    pub fn apply(&self, detections: &mut Vec<Detection>, (width, height): (usize, usize)) {
        detections.retain(|d| d.ltrb.height() >= self.min_height);
        if !self.mask.is_empty() {
            detections.retain(|d| {
                let (x, y) = foot(&d.ltrb);
                !self.mask.covers(x / width as f64, y / height as f64)
            });
        }
    }
}

/// Middle of the lower edge.
fn foot(ltrb: &Ltrb) -> (f64, f64) {
    (
        (f64::from(ltrb.left) + f64::from(ltrb.right)) / 2.0,
        f64::from(ltrb.bottom),
    )
}

fn on_grid(fraction: f64) -> i64 {
    // `as` saturates; far outside is outside, whatever the number.
    (fraction * GRID).round() as i64
}

fn polygon(corners: &[[f64; 2]]) -> Result<Vec<Point>, String> {
    for (index, corner) in corners.iter().enumerate() {
        if !corner.iter().all(|v| (0.0..=1.0).contains(v)) {
            return Err(format!(
                "corner {} is {corner:?}: x and y are fractions of the frame, 0 to 1",
                index + 1
            ));
        }
    }
    let mut points: Vec<Point> = corners.iter().map(|c| c.map(on_grid)).collect();
    if points.len() > 1 && points.first() == points.last() {
        points.pop();
    }
    if points.len() < 3 {
        return Err(format!(
            "it has {} corners: an area needs at least 3",
            points.len()
        ));
    }
    let n = points.len();
    let edge = |i: usize| (points[i], points[(i + 1) % n]);
    if let Some(i) = (0..n).find(|&i| edge(i).0 == edge(i).1) {
        return Err(format!(
            "corners {} and {} are the same",
            i + 1,
            (i + 1) % n + 1
        ));
    }
    if points.iter().all(|&p| cross(points[0], points[1], p) == 0) {
        return Err("its corners lie on one line: it has no area".into());
    }
    for i in 0..n {
        for j in i + 1..n {
            let (a, b) = (edge(i), edge(j));
            let bad = if j == i + 1 {
                folds_back(a.0, a.1, b.1)
            } else if (j + 1) % n == i {
                folds_back(b.0, b.1, a.1)
            } else {
                meet(a, b)
            };
            if bad {
                let name = |i: usize| format!("{}-{}", i + 1, (i + 1) % n + 1);
                return Err(format!(
                    "its edges {} and {} cross or touch: list the corners in their order around the area",
                    name(i),
                    name(j)
                ));
            }
        }
    }
    Ok(points)
}

/// Twice the signed area of a triangle: above 0 if `c` lies left of the way from `a` to `b` (y pointing up). Exact:
/// within a few frames of the frame, products stay below 2^60.
fn cross(a: Point, b: Point, c: Point) -> i64 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

/// Whether `p`, known to be on the line through `a` and `b`, lies between them or on one of them.
fn between(a: Point, b: Point, p: Point) -> bool {
    (0..2).all(|axis| (a[axis].min(b[axis])..=a[axis].max(b[axis])).contains(&p[axis]))
}

/// Whether the way `a` - `b` - `c` turns around in `b` and lies on itself.
fn folds_back(a: Point, b: Point, c: Point) -> bool {
    cross(a, b, c) == 0 && (between(a, b, c) || between(b, c, a))
}

/// Whether two edges have a point in common.
fn meet((a, b): (Point, Point), (c, d): (Point, Point)) -> bool {
    let (c_side, d_side) = (cross(a, b, c).signum(), cross(a, b, d).signum());
    let (a_side, b_side) = (cross(c, d, a).signum(), cross(c, d, b).signum());
    (c_side * d_side < 0 && a_side * b_side < 0)
        || (c_side == 0 && between(a, b, c))
        || (d_side == 0 && between(a, b, d))
        || (a_side == 0 && between(c, d, a))
        || (b_side == 0 && between(c, d, b))
}

/// In the polygon (a ray to the right crosses its border an odd number of times) or on its border.
fn inside(corners: &[Point], point: Point) -> bool {
    // No corner is further out; past it, products could overflow.
    if point.iter().any(|v| !(0..=GRID as i64).contains(v)) {
        return false;
    }
    let mut odd = false;
    for (i, &a) in corners.iter().enumerate() {
        let b = corners[(i + 1) % corners.len()];
        let side = cross(a, b, point);
        if side == 0 && between(a, b, point) {
            return true;
        }
        // An edge takes its upper end and not its lower one, so that a ray through a corner counts it once.
        let upwards = a[1] <= point[1] && point[1] < b[1];
        let downwards = b[1] <= point[1] && point[1] < a[1];
        if (upwards && side > 0) || (downwards && side < 0) {
            odd = !odd;
        }
    }
    odd
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const SQUARE: [[f64; 2]; 4] = [[0.25, 0.5], [0.75, 0.5], [0.75, 1.0], [0.25, 1.0]];

    fn refused(corners: &[[f64; 2]]) -> String {
        let first = SQUARE.to_vec();
        let error = Mask::new(&[first, corners.to_vec()]).unwrap_err();
        assert_eq!(error.polygon, 2);
        error.to_string()
    }

    #[test]
    fn the_border_counts() {
        let mask = Mask::new(&[SQUARE.to_vec()]).unwrap();
        for (x, y) in [
            (0.5, 0.75),
            (0.25, 0.5),
            (0.75, 1.0),
            (0.5, 1.0),
            (0.25, 0.8),
            (0.5, 0.5),
        ] {
            assert!(mask.covers(x, y), "{x} {y}");
        }
        let step = 1.0 / GRID;
        for (x, y) in [
            (0.25 - step, 0.7),
            (0.5, 0.5 - step),
            (0.75 + step, 0.9),
            (0.5, 1.0 + step),
            (0.9, 0.5),
        ] {
            assert!(!mask.covers(x, y), "{x} {y}");
        }
        assert!(!Mask::default().covers(0.5, 0.5));
    }

    #[test]
    fn polygons_that_are_no_area_are_refused_by_name() {
        let [a, b, c, d] = SQUARE;
        assert!(refused(&[]).contains("polygon 2: it has 0 corners"));
        assert!(refused(&[a, b]).contains("at least 3"));
        assert!(refused(&[a, b, a]).contains("it has 2 corners"));
        assert!(refused(&[a, b, [1.5, 0.5]]).contains("corner 3 is [1.5, 0.5]"));
        assert!(refused(&[a, b, [f64::NAN, 0.5]]).contains("NaN"));
        assert!(refused(&[a, b, c, [-0.1, 0.5]]).contains("corner 4"));
        assert!(refused(&[[0.1, 0.1], [0.2, 0.2], [0.9, 0.9]]).contains("no area"));
        assert!(refused(&[a, a, b, c]).contains("corners 1 and 2 are the same"));
        let crossed = refused(&[a, c, b, d]);
        assert!(
            crossed.contains("edges 1-2 and 3-4 cross or touch"),
            "{crossed}"
        );
        // A spike: there and back again.
        let spike = refused(&[a, b, [0.5, 0.5], c]);
        assert!(spike.contains("edges 1-2 and 2-3"), "{spike}");
        // A corner on another edge.
        let touching = refused(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.0], [0.0, 1.0]]);
        assert!(touching.contains("edges 1-2 and 3-4"), "{touching}");
        // Closed by hand, either way around: fine.
        Mask::new(&[vec![a, b, c, d, a], vec![d, c, b, a]]).unwrap();
    }

    #[test]
    fn feet_in_the_mask_and_small_boxes_are_dropped() {
        let filter = CameraFilter {
            mask: Mask::new(&[SQUARE.to_vec()]).unwrap(),
            min_height: 50.0,
        };
        let at = |left: f32, top: f32, right: f32, bottom: f32| Detection {
            ltrb: Ltrb {
                left,
                top,
                right,
                bottom,
            },
            score: 0.5,
        };
        let outside = at(0.0, 50.0, 99.0, 150.0);
        let mut detections = vec![
            // Its feet are cut off by the lower edge of the frame.
            at(90.0, 20.0, 110.0, 200.0),
            outside,
            // Only its head is in the mask's columns.
            at(90.0, 100.0, 110.0, 149.0),
            at(40.0, 20.0, 60.0, 160.0),
        ];
        filter.apply(&mut detections, (200, 200));
        assert_eq!(detections, [outside]);
        let mut all = vec![outside; 3];
        CameraFilter::default().apply(&mut all, (200, 200));
        assert_eq!(all.len(), 3);
    }

    /// Corners on a grid of 16 around a middle, in order of their angle: never crossing themselves.
    fn star() -> impl Strategy<Value = Vec<[f64; 2]>> {
        proptest::collection::vec((0u32..=16, 0u32..=16), 3..12).prop_filter_map(
            "no area",
            |mut corners| {
                let angle = |&(x, y): &(u32, u32)| (f64::from(y) - 8.1).atan2(f64::from(x) - 7.9);
                corners.sort_by(|a, b| angle(a).total_cmp(&angle(b)));
                corners.dedup();
                let corners: Vec<[f64; 2]> = corners
                    .iter()
                    .map(|&(x, y)| [f64::from(x) / 16.0, f64::from(y) / 16.0])
                    .collect();
                Mask::new(std::slice::from_ref(&corners))
                    .ok()
                    .map(|_| corners)
            },
        )
    }

    /// How often the border goes around a point: the angles to its corners, summed up. `None` if the point is on it, by a
    /// distance: positions are multiples of 1/64.
    fn winding(corners: &[[f64; 2]], [x, y]: [f64; 2]) -> Option<i64> {
        let mut sum = 0.0;
        for (i, a) in corners.iter().enumerate() {
            let b = corners[(i + 1) % corners.len()];
            let (ax, ay, bx, by) = (a[0] - x, a[1] - y, b[0] - x, b[1] - y);
            let (dx, dy) = (bx - ax, by - ay);
            let nearest = (-(ax * dx + ay * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
            if (ax + nearest * dx).hypot(ay + nearest * dy) < 1e-9 {
                return None;
            }
            sum += (ax * by - ay * bx).atan2(ax * bx + ay * by);
        }
        Some((sum / std::f64::consts::TAU).round() as i64)
    }

    proptest! {
        #[test]
        fn agrees_with_the_winding_number(
            corners in star(),
            points in proptest::collection::vec((0u32..=64, 0u32..=64), 50),
        ) {
            let mask = Mask::new(std::slice::from_ref(&corners)).unwrap();
            // The corners themselves, and points of which many lie on edges or beside corners.
            let of_grid = points.iter().map(|&(x, y)| [f64::from(x) / 64.0, f64::from(y) / 64.0]);
            for point in of_grid.chain(corners.iter().copied()) {
                let want = winding(&corners, point).is_none_or(|n| n != 0);
                prop_assert_eq!(mask.covers(point[0], point[1]), want, "{:?} in {:?}", point, corners);
            }
        }

        #[test]
        fn any_corners_are_taken_or_refused(
            corners in proptest::collection::vec([-0.5f64..1.5, 0.0f64..1.0], 0..8),
        ) {
            if let Ok(mask) = Mask::new(std::slice::from_ref(&corners)) {
                prop_assert!(corners.len() >= 3);
                for [x, y] in corners {
                    prop_assert!(mask.covers(x, y), "a corner is on the border");
                }
            }
        }
    }
}
