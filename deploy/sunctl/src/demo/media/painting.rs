//! What the generated pictures show: one of five motifs, its colours and shapes chosen by an index.
//!
//! A picture is a function from a point to a colour, so nothing is kept of it, and two sizes of one
//! index show the same scene. The arithmetic is that of `f32` on this machine: two machines may differ
//! in the last bit of a colour, one machine never does.

use super::scatter;

/// A scene that can be asked for the colour of any point.
#[derive(Clone, Copy, Debug)]
pub struct Painting {
    motif: Motif,
    dark: [f32; 3],
    light: [f32; 3],
    accent: [f32; 3],
    /// Four numbers in 0..1 that shape the scene.
    dice: [f32; 4],
}

#[derive(Clone, Copy, Debug)]
enum Motif {
    Landscape,
    Rings,
    Waves,
    Mosaic,
    Rays,
}

impl Painting {
    /// The scene with this index.
    #[must_use]
    pub fn new(index: u32) -> Self {
        let seed = u64::from(index) + 1;
        let die = |number: u64| unit(scatter(seed * 8 + number));
        // The golden ratio's steps keep neighbours in the gallery apart in hue.
        let hue = (seed as f32 * 0.618_034).fract();
        let motif = match index % 5 {
            0 => Motif::Landscape,
            1 => Motif::Rings,
            2 => Motif::Waves,
            3 => Motif::Mosaic,
            _ => Motif::Rays,
        };
        Self {
            motif,
            dark: colour(hue, 0.65, 0.28),
            light: colour(hue + 0.08 + 0.1 * die(0), 0.55, 0.95),
            accent: colour(hue + 0.45 + 0.15 * die(1), 0.6, 0.98),
            dice: [die(2), die(3), die(4), die(5)],
        }
    }

    /// Red, green and blue at (x, y), both in 0..1 from the upper left.
    #[must_use]
    pub fn at(&self, x: f32, y: f32) -> [u8; 3] {
        // Distances are to be round: pictures are eight wide and five high.
        let y = y * 0.625;
        let rgb = match self.motif {
            Motif::Landscape => self.landscape(x, y),
            Motif::Rings => self.rings(x, y),
            Motif::Waves => self.waves(x, y),
            Motif::Mosaic => self.mosaic(x, y),
            Motif::Rays => self.rays(x, y),
        };
        rgb.map(byte)
    }

    /// A sun above three ranges of hills.
    fn landscape(&self, x: f32, y: f32) -> [f32; 3] {
        let [sun_x, sun_y, steepness, phase] = self.dice;
        let (sun_x, sun_y) = (0.2 + 0.6 * sun_x, 0.12 + 0.14 * sun_y);
        let far = distance(x - sun_x, y - sun_y);
        let sky = blend(self.light, self.accent, smooth(0.0, 0.5, y));
        let glow = blend([1.0, 0.97, 0.85], sky, smooth(0.07, 0.3, far));
        let mut seen = blend([1.0, 0.99, 0.93], glow, smooth(0.07, 0.078, far));
        for (layer, foot) in [(1.0_f32, 0.36), (2.0, 0.44), (3.0, 0.53)] {
            let wave = (x * (4.0 + 2.0 * layer) + phase * 9.0 * layer).sin() * 0.035
                + (x * (11.0 + 3.0 * layer) + layer).sin() * 0.015 * (0.5 + steepness);
            let hill = blend(self.light, self.dark, layer / 3.0);
            seen = blend(seen, hill, smooth(foot + wave - 0.002, foot + wave + 0.002, y));
        }
        seen
    }

    /// Ripples around a point.
    fn rings(&self, x: f32, y: f32) -> [f32; 3] {
        let [left, top, narrow, _] = self.dice;
        let far = distance(x - 0.2 - 0.6 * left, y - 0.1 - 0.4 * top);
        let ripple = 0.5 + 0.5 * (far * (40.0 + 50.0 * narrow)).sin();
        let ground = blend(self.accent, self.dark, smooth(0.0, 0.8, far));
        blend(ground, self.light, ripple * ripple * (1.0 - smooth(0.1, 0.9, far)))
    }

    /// Three waves on top of each other.
    fn waves(&self, x: f32, y: f32) -> [f32; 3] {
        let [a, b, c, d] = self.dice;
        let height = ((x * (5.0 + 8.0 * a) + y * 6.0 * b).sin()
            + (y * (7.0 + 9.0 * b) - x * 4.0 * c + d * 6.0).sin()
            + ((x + y) * (6.0 + 6.0 * c) + a * 6.0).sin())
            / 6.0
            + 0.5;
        let lower = blend(self.dark, self.accent, smooth(0.0, 0.55, height));
        blend(lower, self.light, smooth(0.5, 1.0, height))
    }

    /// Tiles of chosen shades, each lit from above.
    fn mosaic(&self, x: f32, y: f32) -> [f32; 3] {
        let tiles = 8.0 + (self.dice[0] * 8.0).floor();
        let (column, row) = ((x * tiles).floor(), (y * tiles).floor());
        let (inside_x, inside_y) = ((x * tiles).fract(), (y * tiles).fract());
        let tile = (column * 31.0 + row * 57.0 + self.dice[1] * 99.0).sin() * 43_758.547;
        let shade = tile - tile.floor();
        let base = if shade > 0.86 { self.accent } else { blend(self.dark, self.light, shade) };
        let edge = inside_x.min(1.0 - inside_x).min(inside_y.min(1.0 - inside_y));
        let lit = 1.0 - 0.18 * inside_y;
        blend(self.dark, base.map(|part| part * lit), smooth(0.02, 0.06, edge))
    }

    /// Rays from below the horizon.
    fn rays(&self, x: f32, y: f32) -> [f32; 3] {
        let [left, turn, many, _] = self.dice;
        let (dx, dy) = (x - 0.2 - 0.6 * left, 0.66 - y);
        let angle = dy.atan2(dx);
        let count = 10.0 + (many * 8.0).floor();
        let ray = smooth(-0.12, 0.12, (angle * count + turn * 6.0).sin());
        let far = distance(dx, dy);
        let ground = blend(self.accent, self.dark, smooth(0.1, 0.9, far));
        let lit = blend(ground, self.light, ray * (0.85 - 0.5 * far));
        blend([1.0, 0.98, 0.9], lit, smooth(0.13, 0.15, far))
    }
}

/// 0..1 from the upper 24 bits of a number, as many as an f32 holds exactly.
fn unit(number: u64) -> f32 {
    (number >> 40) as f32 / 16_777_216.0
}

fn distance(x: f32, y: f32) -> f32 {
    x.hypot(y)
}

/// 0 below `from`, 1 above `to`, a smooth step between.
fn smooth(from: f32, to: f32, at: f32) -> f32 {
    let share = ((at - from) / (to - from)).clamp(0.0, 1.0);
    share * share * (3.0 - 2.0 * share)
}

fn blend(from: [f32; 3], to: [f32; 3], share: f32) -> [f32; 3] {
    let share = share.clamp(0.0, 1.0);
    std::array::from_fn(|part| from[part] + (to[part] - from[part]) * share)
}

/// Hue, saturation and value, each 0..1 (the hue wraps), to red, green and blue.
fn colour(hue: f32, saturation: f32, value: f32) -> [f32; 3] {
    [5.0_f32, 3.0, 1.0].map(|offset| {
        let sector = (offset + hue.fract() * 6.0) % 6.0;
        value - value * saturation * sector.min(4.0 - sector).clamp(0.0, 1.0)
    })
}

fn byte(part: f32) -> u8 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=255")]
    let byte = (part.clamp(0.0, 1.0) * 255.0).round() as u8;
    byte
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_the_wheel() {
        check(colour(0.0, 1.0, 1.0), [255, 0, 0]);
        check(colour(1.0 / 3.0, 1.0, 1.0), [0, 255, 0]);
        check(colour(2.0 / 3.0, 1.0, 1.0), [0, 0, 255]);
        check(colour(1.5, 0.0, 0.5), [128, 128, 128]);
    }

    #[test]
    fn a_painting_looks_the_same_each_time() {
        for index in 0..10 {
            assert_eq!(Painting::new(index).at(0.3, 0.7), Painting::new(index).at(0.3, 0.7));
        }
    }

    #[track_caller]
    fn check(rgb: [f32; 3], expected: [u8; 3]) {
        assert_eq!(rgb.map(byte), expected);
    }
}
