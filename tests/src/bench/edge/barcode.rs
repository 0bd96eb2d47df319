//! The number of a frame, burnt into its upper edge: black and white blocks that survive a codec.
//!
//! Sixteen blocks, the highest bit first, then sixteen of the complement. `frame_number` in tests/bench/edge_peers.py reads
//! the same.

/// Side of a block, pixels.
const BLOCK: usize = 32;
/// Bits of a number.
const BITS: usize = 16;
/// The least width of a frame that has room for it.
pub const LEAST_WIDTH: usize = 2 * BITS * BLOCK;

/// Writes a number into rows of brightness (one byte a pixel, `stride` bytes a row). A plane that is too small is left alone.
pub fn write(plane: &mut [u8], stride: usize, number: u16) {
    if stride < LEAST_WIDTH || plane.len() < stride * BLOCK {
        return;
    }
    let code = (u32::from(number) << BITS) | u32::from(!number);
    for row in plane.chunks_mut(stride).take(BLOCK) {
        for (i, block) in row[..LEAST_WIDTH].chunks_mut(BLOCK).enumerate() {
            let white = code >> (2 * BITS - 1 - i) & 1 == 1;
            block.fill(if white { 235 } else { 16 });
        }
    }
}

/// Reads a number; `None` if number and complement disagree, or there is no room for them.
pub fn read(plane: &[u8], stride: usize) -> Option<u16> {
    if stride < LEAST_WIDTH || plane.len() < stride * BLOCK {
        return None;
    }
    let quarter = BLOCK / 4;
    let mut code = 0u32;
    for i in 0..2 * BITS {
        let mut sum = 0u32;
        for y in quarter..BLOCK - quarter {
            let start = y * stride + i * BLOCK;
            let row = &plane[start + quarter..start + BLOCK - quarter];
            sum += row.iter().map(|v| u32::from(*v)).sum::<u32>();
        }
        let pixels = ((BLOCK / 2) * (BLOCK / 2)) as u32;
        code = code << 1 | u32::from(sum > 127 * pixels);
    }
    let (number, complement) = ((code >> BITS) as u16, code as u16);
    (number == !complement).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_read_back_through_noise() {
        let stride = 1280;
        for number in (0..=u16::MAX).step_by(251) {
            let mut plane = vec![90u8; stride * 64];
            write(&mut plane, stride, number);
            for (i, v) in plane.iter_mut().enumerate() {
                let noise = (i * 2_654_435_761 % 61) as i32 - 30;
                *v = (i32::from(*v) + noise).clamp(0, 255) as u8;
            }
            assert_eq!(read(&plane, stride), Some(number));
        }
    }

    #[test]
    fn a_picture_without_a_number_has_none() {
        assert_eq!(read(&vec![200; 1280 * 64], 1280), None);
        assert_eq!(read(&vec![200; 640 * 64], 640), None);
        let mut plane = vec![0; 1280 * 64];
        write(&mut plane, 1280, 77);
        // One block turned over: the complement tells.
        for row in plane.chunks_mut(1280).take(BLOCK) {
            row[..BLOCK].fill(235);
        }
        assert_eq!(read(&plane, 1280), None);
    }
}
