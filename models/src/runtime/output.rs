//! What a model gives back: borrowed from the engine where that can be, joined where a batch ran in pieces.

use super::Tensor;

/// An output of one run, its first axis the batch. The numbers belong to the engine: they are gone when the visitor
/// that was shown them returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Output<'a> {
    /// Name.
    pub name: &'a str,
    /// Shape.
    pub shape: &'a [usize],
    /// Elements, row-major; other types than f32 are converted.
    pub data: &'a [f32],
}

/// Named outputs of one run, copied.
pub(super) type Outputs = Vec<(String, Tensor)>;

/// Copies outputs.
pub(super) fn copied(outputs: &[Output]) -> Outputs {
    outputs
        .iter()
        .map(|o| {
            let tensor = Tensor {
                shape: o.shape.to_vec(),
                data: o.data.to_vec(),
            };
            (o.name.to_string(), tensor)
        })
        .collect()
}

/// Outputs of a batch that runs in pieces, joined along their first axis. Kept from batch to batch, so that memory is
/// asked for once.
#[derive(Debug, Default)]
pub(super) struct Joined(Vec<Tensor>);

impl Joined {
    /// Forgets the last batch.
    pub(super) fn clear(&mut self) {
        for tensor in &mut self.0 {
            tensor.shape.clear();
            tensor.data.clear();
        }
    }

    /// Appends the first `keep` rows of output number `position` of a piece of `rows` pictures. An output whose first
    /// axis isn't the batch cannot be joined and is an error.
    pub(super) fn append(
        &mut self,
        position: usize,
        output: Output,
        rows: usize,
        keep: usize,
    ) -> Result<(), String> {
        let Output { name, shape, data } = output;
        if shape.first() != Some(&rows) || rows == 0 {
            return Err(format!(
                "output `{name}` has shape {shape:?}: its first axis is not the batch of {rows}, so several batches cannot be joined"
            ));
        }
        if self.0.len() <= position {
            self.0.resize_with(position + 1, || Tensor {
                shape: Vec::new(),
                data: Vec::new(),
            });
        }
        let whole = &mut self.0[position];
        if whole.shape.is_empty() {
            whole.shape.extend_from_slice(shape);
            whole.shape[0] = 0;
        } else if whole.shape[1..] != shape[1..] {
            return Err(format!(
                "output `{name}` has shape {:?} in one batch and {shape:?} in another",
                whole.shape
            ));
        }
        whole.shape[0] += keep;
        whole
            .data
            .extend_from_slice(&data[..data.len() / rows * keep]);
        Ok(())
    }

    /// The joined outputs under their names.
    pub(super) fn outputs<'a>(&'a self, names: &'a [String]) -> Vec<Output<'a>> {
        let named = names.iter().zip(&self.0);
        named
            .map(|(name, tensor)| Output {
                name,
                shape: &tensor.shape,
                data: &tensor.data,
            })
            .collect()
    }
}

/// Joins copied outputs of consecutive pieces of `rows` pictures, keeping the first `batch` rows where the last one was
/// filled up.
pub(super) fn join(pieces: Vec<Outputs>, rows: usize, batch: usize) -> Result<Outputs, String> {
    if pieces.len() == 1 && rows == batch {
        return Ok(pieces.into_iter().next().unwrap_or_default());
    }
    let mut joined = Joined::default();
    let mut names = Vec::new();
    for (index, outputs) in pieces.into_iter().enumerate() {
        let keep = rows.min(batch - index * rows);
        for (position, (name, tensor)) in outputs.iter().enumerate() {
            let output = Output {
                name,
                shape: &tensor.shape,
                data: &tensor.data,
            };
            joined.append(position, output, rows, keep)?;
        }
        names = outputs.into_iter().map(|(name, _)| name).collect();
    }
    Ok(names.into_iter().zip(joined.0).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn piece(name: &str, shape: Vec<usize>, data: Vec<f32>) -> Outputs {
        vec![(name.to_string(), Tensor { shape, data })]
    }

    #[test]
    fn pieces_are_joined_and_what_was_filled_up_is_cut() {
        let pieces = || {
            vec![
                piece("y", vec![3, 2], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
                piece("y", vec![3, 2], vec![6.0, 7.0, 8.0, 9.0, 8.0, 9.0]),
            ]
        };
        let want: Vec<f32> = (0..10).map(|v| v as f32).collect();
        let joined = join(pieces(), 3, 5).unwrap();
        assert_eq!(joined[0].1.shape, [5, 2]);
        assert_eq!(joined[0].1.data, want);
        // The same again in the same memory.
        let mut kept = Joined::default();
        for _ in 0..2 {
            kept.clear();
            for (index, outputs) in pieces().iter().enumerate() {
                let tensor = &outputs[0].1;
                let output = Output {
                    name: "y",
                    shape: &tensor.shape,
                    data: &tensor.data,
                };
                kept.append(0, output, 3, [3, 2][index]).unwrap();
            }
            let names = ["y".to_string()];
            assert_eq!(copied(&kept.outputs(&names)), joined);
        }
    }

    #[test]
    fn an_output_without_a_batch_axis_is_not_joined() {
        let two = || {
            vec![
                piece("n", vec![7], vec![0.0; 7]),
                piece("n", vec![7], vec![0.0; 7]),
            ]
        };
        assert!(join(two(), 1, 2).unwrap_err().contains("`n`"));
        // One run alone is left as it is.
        assert_eq!(join(two()[..1].to_vec(), 1, 1).unwrap(), two()[0]);
        let other = vec![
            piece("n", vec![1, 2], vec![0.0; 2]),
            piece("n", vec![1, 3], vec![0.0; 3]),
        ];
        assert!(join(other, 1, 2).unwrap_err().contains("[1, 3]"));
    }
}
