//! Stage: people and furniture painted in order of distance, and the camera's scene behind them.

use crate::body::Figure;
use crate::camera::Camera;
use crate::keypoints::Joints;
use crate::person::Person;
use crate::pose::{Pose, Skeleton};
use crate::prop::Prop;
use crate::render::Canvas;
use crate::view::{Eye, Placement};

/// Somebody in front of a camera.
#[derive(Debug, Clone, Copy)]
pub struct Actor<'a> {
    /// Who.
    pub person: &'a Person,
    /// Moment of the walk.
    pub pose: Pose,
    /// Where.
    pub place: Placement,
    /// Salt of the folds of the cloth.
    pub salt: u32,
}

/// What became of an actor on the canvas.
#[derive(Debug, Clone, PartialEq)]
pub struct Cast {
    /// Left, top, right, bottom of the whole body on the canvas, also beyond its border.
    pub bounds: [f32; 4],
    /// Share of the body's box and pixels that is seen, 0..1.
    pub visible: f32,
    /// Joints.
    pub joints: Joints,
}

/// Bounds of an actor in canvas pixels, without painting.
pub fn bounds(actor: &Actor<'_>, eye: &Eye) -> [f32; 4] {
    Figure::new(
        actor.person,
        &Skeleton::new(actor.person, actor.pose),
        actor.place,
        eye,
    )
    .bounds
}

/// Paints actors and props on an empty canvas, near to far, and the scene behind them. One [`Cast`] for each
/// actor, in order.
pub fn paint(
    canvas: &mut Canvas,
    eye: &Eye,
    camera: &Camera,
    actors: &[Actor<'_>],
    props: &[Prop],
) -> Vec<Cast> {
    let skeletons: Vec<Skeleton> = actors
        .iter()
        .map(|a| Skeleton::new(a.person, a.pose))
        .collect();
    let figures: Vec<Figure<'_>> = actors
        .iter()
        .zip(&skeletons)
        .map(|(a, s)| Figure::new(a.person, s, a.place, eye))
        .collect();
    enum Item<'i> {
        Actor(usize),
        Prop(&'i Prop),
    }
    let mut items: Vec<(f32, Item<'_>)> = figures
        .iter()
        .enumerate()
        .map(|(i, figure)| (figure.depth, Item::Actor(i)))
        .chain(
            props
                .iter()
                .map(|prop| (prop.x.hypot(prop.y), Item::Prop(prop))),
        )
        .collect();
    items.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut painted = vec![0usize; actors.len()];
    for (_, item) in items.iter().rev() {
        match item {
            Item::Prop(prop) => prop.paint(canvas, eye, &camera.light),
            Item::Actor(i) => {
                let (actor, figure) = (&actors[*i], &figures[*i]);
                let light = camera.light_at(&actor.place);
                let s = figure.scale;
                for part in figure.parts.iter().rev() {
                    painted[*i] += canvas.paint(part, &light, *i as u16 + 1, actor.salt);
                }
                canvas.shade_ellipse(figure.ground, [0.34 * s, 0.13 * s], 0.0, 0.55);
                let sun = crate::colour::luminance(light.direct);
                let throw = -light.towards[0] * 0.7 * s;
                canvas.shade_ellipse(
                    [figure.ground[0] + throw * 0.7, figure.ground[1] - 0.1 * s],
                    [0.3 * s + throw.abs() * 0.7, 0.17 * s],
                    0.0,
                    (0.45 * sun).min(0.5),
                );
            }
        }
    }
    camera.scene.lay_behind(canvas, eye);
    let seen = canvas.seen(actors.len());
    let (w, h) = (canvas.width as f32, canvas.height as f32);
    figures
        .iter()
        .enumerate()
        .map(|(i, figure)| {
            let [l, t, r, b] = figure.bounds;
            let whole = ((r - l) * (b - t)).max(1e-3);
            let inside =
                ((r.min(w) - l.max(0.0)).max(0.0) * (b.min(h) - t.max(0.0)).max(0.0)) / whole;
            let share = seen[i + 1] as f32 / painted[i].max(1) as f32;
            Cast {
                bounds: figure.bounds,
                visible: (share * inside).clamp(0.0, 1.0),
                joints: Joints::new(&skeletons[i], &actors[i].place, eye, canvas, i as u16 + 1),
            }
        })
        .collect()
}
