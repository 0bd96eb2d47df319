//! A network as data: named nodes over named tensors and named parameters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ops::Op;
use crate::shape::{self, ShapeError};

/// Version of the `graph.json` format.
pub const GRAPH_VERSION: u32 = 1;

/// Name of the graph output that is compared between people: L2-normalised, shape (D).
pub const EMBEDDING: &str = "embedding";
/// Name of the graph output before the neck: the pooled feature, shape (D).
pub const POOLED: &str = "pooled";
/// Name of the graph output after the neck, not normalised, shape (D).
pub const NECK: &str = "neck";
/// Name of the graph output of the last convolutional stage, shape (C, H, W).
pub const FEATURE_MAP: &str = "feature_map";

/// One operator applied to tensors. Its result bears the node's name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Unique; also the name of the tensor it makes.
    pub name: String,
    /// What it does.
    #[serde(flatten)]
    pub op: Op,
    /// Names of the tensors it takes: the graph's input or earlier nodes.
    pub inputs: Vec<String>,
    /// Names of its parameters, in the operator's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<String>,
}

/// How a parameter starts when no weights are given. Draws are seeded by the caller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "init", rename_all = "snake_case")]
pub enum Init {
    /// Every element the same.
    Constant {
        /// The value.
        value: f32,
    },
    /// Normal with standard deviation `sqrt(2 / fan_out)`, fan_out = O * kh * kw (He et al. 2015; torchvision's ResNet).
    KaimingNormalFanOut,
    /// Normal with a given standard deviation.
    Normal {
        /// Standard deviation.
        std: f32,
    },
}

/// What a parameter is to the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    /// Trained.
    Trainable,
    /// Kept at its value (for example the frozen bias of a BN-neck).
    Frozen,
    /// A running statistic: written by the forward pass in training, never by the optimiser.
    Buffer,
}

/// A named tensor of weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Param {
    /// Name in the checkpoint (torchvision's, where torchvision has one).
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Its role.
    pub kind: ParamKind,
    /// Its start.
    #[serde(flatten)]
    pub init: Init,
}

/// A network: one image input, nodes in topological order, parameters, named outputs.
///
/// Shapes are per sample; the batch axis is implicit and first everywhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// Format version, [`GRAPH_VERSION`].
    pub version: u32,
    /// Architecture, for people ("resnet50").
    pub name: String,
    /// Name of the input tensor.
    pub input: String,
    /// Shape of the input per sample, (C, H, W).
    pub input_shape: [usize; 3],
    /// Operators, each after the ones it takes from.
    pub nodes: Vec<Node>,
    /// Parameters, in order of first use.
    pub params: Vec<Param>,
    /// Role (for example [`EMBEDDING`]) to tensor name.
    pub outputs: BTreeMap<String, String>,
}

/// Why a graph cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The file was written by another version of the toolkit.
    #[error(
        "graph version {got}, this build reads version {GRAPH_VERSION}: export it again with a matching toolkit"
    )]
    Version {
        /// Version in the file.
        got: u32,
    },
    /// Two nodes, or a node and the input, share a name.
    #[error("graph {graph}: the name `{name}` is used twice")]
    DuplicateName {
        /// Graph.
        graph: String,
        /// The name.
        name: String,
    },
    /// A node takes a tensor that no earlier node makes.
    #[error("graph {graph}: node `{node}` takes `{input}`, which no earlier node makes")]
    UnknownTensor {
        /// Graph.
        graph: String,
        /// Taking node.
        node: String,
        /// Missing tensor.
        input: String,
    },
    /// A node or output names something that isn't there.
    #[error(
        "graph {graph}: `{user}` names the parameter or tensor `{name}`, which is not declared"
    )]
    Undeclared {
        /// Graph.
        graph: String,
        /// Who names it.
        user: String,
        /// What is missing.
        name: String,
    },
    /// Wrong number of inputs or parameters.
    #[error(
        "graph {graph}: node `{node}` ({op}) has {got_inputs} inputs and {got_params} parameters, wants {inputs} and {params}"
    )]
    Arity {
        /// Graph.
        graph: String,
        /// Node.
        node: String,
        /// Operator.
        op: &'static str,
        /// Given.
        got_inputs: usize,
        /// Given.
        got_params: usize,
        /// Wanted.
        inputs: usize,
        /// Wanted.
        params: usize,
    },
    /// Shapes don't fit.
    #[error("graph {graph}: {source}")]
    Shape {
        /// Graph.
        graph: String,
        /// Detail.
        source: Box<ShapeError>,
    },
    /// The output asked for does not exist.
    #[error("graph {graph} has no output `{role}` (it has: {have})")]
    NoOutput {
        /// Graph.
        graph: String,
        /// Asked for.
        role: String,
        /// Existing roles.
        have: String,
    },
    /// The file is not a graph.
    #[error("not a graph: {0}")]
    Json(#[from] serde_json::Error),
}

impl Graph {
    /// An empty graph over images of shape (C, H, W).
    pub fn new(name: impl Into<String>, input_shape: [usize; 3]) -> Self {
        Graph {
            version: GRAPH_VERSION,
            name: name.into(),
            input: "images".into(),
            input_shape,
            nodes: Vec::new(),
            params: Vec::new(),
            outputs: BTreeMap::new(),
        }
    }

    /// Appends a node and returns the name of its tensor.
    pub fn push(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: &[&str],
        params: &[&str],
    ) -> String {
        let name = name.into();
        self.nodes.push(Node {
            name: name.clone(),
            op,
            inputs: inputs.iter().map(ToString::to_string).collect(),
            params: params.iter().map(ToString::to_string).collect(),
        });
        name
    }

    /// Declares a parameter.
    pub fn param(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        kind: ParamKind,
        init: Init,
    ) -> String {
        let name = name.into();
        self.params.push(Param {
            name: name.clone(),
            shape: shape.to_vec(),
            kind,
            init,
        });
        name
    }

    /// Tensor behind an output role.
    ///
    /// # Errors
    /// [`GraphError::NoOutput`] if there is none.
    pub fn output(&self, role: &str) -> Result<&str, GraphError> {
        self.outputs
            .get(role)
            .map(String::as_str)
            .ok_or_else(|| GraphError::NoOutput {
                graph: self.name.clone(),
                role: role.into(),
                have: self.outputs.keys().cloned().collect::<Vec<_>>().join(", "),
            })
    }

    /// Checks names and arities and infers the per-sample shape of every tensor.
    ///
    /// # Errors
    /// The first thing that doesn't fit, naming node and shapes.
    pub fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, GraphError> {
        let graph = || self.name.clone();
        if self.version != GRAPH_VERSION {
            return Err(GraphError::Version { got: self.version });
        }
        let mut params: BTreeMap<&str, &Param> = BTreeMap::new();
        for p in &self.params {
            if params.insert(&p.name, p).is_some() {
                return Err(GraphError::DuplicateName {
                    graph: graph(),
                    name: p.name.clone(),
                });
            }
        }
        let mut shapes = BTreeMap::from([(self.input.clone(), self.input_shape.to_vec())]);
        for node in &self.nodes {
            let (inputs, n_params) = node.op.arity();
            if node.inputs.len() != inputs || node.params.len() != n_params {
                return Err(GraphError::Arity {
                    graph: graph(),
                    node: node.name.clone(),
                    op: node.op.name(),
                    got_inputs: node.inputs.len(),
                    got_params: node.params.len(),
                    inputs,
                    params: n_params,
                });
            }
            let mut taken = Vec::with_capacity(inputs);
            for input in &node.inputs {
                let shape = shapes.get(input).ok_or_else(|| GraphError::UnknownTensor {
                    graph: graph(),
                    node: node.name.clone(),
                    input: input.clone(),
                })?;
                taken.push(shape.as_slice());
            }
            let mut weights = Vec::with_capacity(n_params);
            for name in &node.params {
                let p = params
                    .get(name.as_str())
                    .ok_or_else(|| GraphError::Undeclared {
                        graph: graph(),
                        user: node.name.clone(),
                        name: name.clone(),
                    })?;
                weights.push(p.shape.as_slice());
            }
            let made = shape::infer(&node.name, &node.op, &taken, &weights).map_err(|source| {
                GraphError::Shape {
                    graph: graph(),
                    source: Box::new(source),
                }
            })?;
            if shapes.insert(node.name.clone(), made).is_some() {
                return Err(GraphError::DuplicateName {
                    graph: graph(),
                    name: node.name.clone(),
                });
            }
        }
        for (role, tensor) in &self.outputs {
            if !shapes.contains_key(tensor) {
                return Err(GraphError::Undeclared {
                    graph: graph(),
                    user: format!("output {role}"),
                    name: tensor.clone(),
                });
            }
        }
        Ok(shapes)
    }

    /// Width of an output of shape (D).
    ///
    /// # Errors
    /// As [`Graph::shapes`] and [`Graph::output`].
    pub fn width(&self, role: &str) -> Result<usize, GraphError> {
        let tensor = self.output(role)?.to_string();
        Ok(self.shapes()?[&tensor].iter().product())
    }

    /// Number of elements of all trainable parameters.
    pub fn trainable_elements(&self) -> usize {
        self.params
            .iter()
            .filter(|p| p.kind == ParamKind::Trainable)
            .map(|p| p.shape.iter().product::<usize>())
            .sum()
    }

    /// Writes the graph as JSON.
    ///
    /// # Errors
    /// None in practice: every field can be written.
    pub fn to_json(&self) -> Result<String, GraphError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Reads and checks a graph.
    ///
    /// # Errors
    /// If it isn't a graph, or one whose names or shapes don't fit.
    pub fn from_json(text: &str) -> Result<Self, GraphError> {
        let graph: Graph = serde_json::from_str(text)?;
        graph.shapes()?;
        Ok(graph)
    }
}
