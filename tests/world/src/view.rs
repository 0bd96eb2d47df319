//! Perspective: a pinhole camera above a flat ground, and the window of its frame that is painted.

use crate::pose::P3;

/// A pinhole camera. World: x to the right, y away from the camera along the ground, z up, metres.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct View {
    /// Focal length in frame pixels.
    pub focal: f32,
    /// Principal point in frame pixels.
    pub centre: [f32; 2],
    /// Height of the camera above the ground, metres.
    pub height: f32,
    /// Downward pitch, radians.
    pub pitch: f32,
}

/// A projected point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Pixels.
    pub at: [f32; 2],
    /// Pixels a metre spans there.
    pub scale: f32,
    /// Distance along the optical axis, metres.
    pub depth: f32,
}

impl View {
    /// Projects a point into frame pixels. Points nearer than 10 cm are taken to be at 10 cm.
    pub fn project(&self, p: P3) -> Seen {
        let (sin, cos) = self.pitch.sin_cos();
        let drop = self.height - p[2];
        let depth = (p[1] * cos + drop * sin).max(0.1);
        let down = drop * cos - p[1] * sin;
        let scale = self.focal / depth;
        Seen {
            at: [self.centre[0] + p[0] * scale, self.centre[1] + down * scale],
            scale,
            depth,
        }
    }

    /// The ground point under a frame pixel, `None` at or above the horizon.
    pub fn ground(&self, x: f32, y: f32) -> Option<[f32; 2]> {
        self.rays().ground(x, y)
    }

    /// The same camera for the rays of many pixels.
    pub fn rays(&self) -> Rays {
        let (sin, cos) = self.pitch.sin_cos();
        Rays {
            view: *self,
            sin,
            cos,
        }
    }
}

/// A [`View`] whose sine and cosine of the pitch are known.
#[derive(Debug, Clone, Copy)]
pub struct Rays {
    view: View,
    sin: f32,
    cos: f32,
}

impl Rays {
    /// As [`View::ground`].
    #[inline]
    pub fn ground(&self, x: f32, y: f32) -> Option<[f32; 2]> {
        let [rx, ry] = self.slope(x, y);
        let fall = ry * self.cos + self.sin;
        if fall <= 1e-4 {
            return None;
        }
        let reach = self.view.height / fall;
        Some([rx * reach, (self.cos - ry * self.sin) * reach])
    }

    /// Where the ray of a frame pixel meets the wall at `distance`: its x and height above the ground.
    #[inline]
    pub fn wall(&self, x: f32, y: f32, distance: f32) -> [f32; 2] {
        let [rx, ry] = self.slope(x, y);
        let reach = distance / (self.cos - ry * self.sin).max(1e-3);
        let fall = ry * self.cos + self.sin;
        [rx * reach, self.view.height - fall * reach]
    }

    fn slope(&self, x: f32, y: f32) -> [f32; 2] {
        let view = &self.view;
        [
            (x - view.centre[0]) / view.focal,
            (y - view.centre[1]) / view.focal,
        ]
    }
}

/// A window of the frame, painted at its own scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Eye {
    /// The camera.
    pub view: View,
    /// Left and top of the window in frame pixels.
    pub corner: [f32; 2],
    /// Canvas pixels to a frame pixel.
    pub zoom: f32,
}

impl Eye {
    /// The whole frame, pixel for pixel.
    pub fn whole(view: View) -> Self {
        Self {
            view,
            corner: [0.0; 2],
            zoom: 1.0,
        }
    }

    /// Projects a point into canvas pixels.
    pub fn project(&self, p: P3) -> Seen {
        let seen = self.view.project(p);
        Seen {
            at: [
                (seen.at[0] - self.corner[0]) * self.zoom,
                (seen.at[1] - self.corner[1]) * self.zoom,
            ],
            scale: seen.scale * self.zoom,
            depth: seen.depth,
        }
    }

    /// Canvas pixels back to frame pixels.
    pub fn frame(&self, at: [f32; 2]) -> [f32; 2] {
        [
            at[0] / self.zoom + self.corner[0],
            at[1] / self.zoom + self.corner[1],
        ]
    }
}

/// Where somebody stands and which way they go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// Metres to the right of the camera.
    pub x: f32,
    /// Metres away from the camera.
    pub y: f32,
    /// Heading, radians: 0 walks away from the camera, pi towards it, pi/2 to the right.
    pub heading: f32,
}

impl Placement {
    /// A point of the person's frame in the world.
    pub fn world(&self, p: P3) -> P3 {
        let (sin, cos) = self.heading.sin_cos();
        [
            self.x + cos * p[0] + sin * p[1],
            self.y - sin * p[0] + cos * p[1],
            p[2],
        ]
    }

    /// Heading minus the bearing of the line of sight: 0 shows the back, pi the front.
    pub fn turn(&self) -> f32 {
        self.heading - self.x.atan2(self.y)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const VIEW: View = View {
        focal: 550.0,
        centre: [320.0, 180.0],
        height: 3.0,
        pitch: 0.35,
    };

    #[test]
    fn ground_inverts_project() {
        for (x, y) in [(-2.0, 5.0), (0.0, 8.0), (3.0, 12.0)] {
            let seen = VIEW.project([x, y, 0.0]);
            let back = VIEW.ground(seen.at[0], seen.at[1]).unwrap();
            assert!((back[0] - x).abs() < 1e-3 && (back[1] - y).abs() < 1e-3);
        }
        assert!(VIEW.ground(320.0, -500.0).is_none());
    }

    #[test]
    fn wall_inverts_project() {
        let seen = VIEW.project([1.5, 9.0, 2.0]);
        let [x, z] = VIEW.rays().wall(seen.at[0], seen.at[1], 9.0);
        assert!((x - 1.5).abs() < 1e-3 && (z - 2.0).abs() < 1e-3);
    }

    #[test]
    fn nearer_is_taller() {
        let tall = |y: f32| VIEW.project([0.0, y, 0.0]).at[1] - VIEW.project([0.0, y, 1.7]).at[1];
        assert!(tall(5.0) > 1.6 * tall(10.0));
    }
}
