//! `reid-train cluster`: features from a file to labels in a file.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::dbscan::Dbscan;
use super::jaccard::{Jaccard, Weights};
use super::npy::{self, Matrix};
use super::{
    BottomUp, ClusterError, Condensed, FeatureDistances, Forbidden, Gmm, KMeans, Metric, Pairs,
    PseudoLabels, Sizes, SparseDistances, Stop, UnitRows, average_linkage, rho, sweep,
};

/// How features become clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Algorithm {
    /// k-reciprocal Jaccard distance and DBSCAN, by the options of that name.
    #[default]
    Dbscan,
    /// Agglomerative, average linkage of Euclidean distances of unit vectors (HCT).
    Average(Stop),
    /// Bottom-up merging on squared Euclidean distances of unit vectors (BUC), all steps on the same features.
    BottomUp {
        /// Share of the images that a step merges.
        merge_share: f64,
        /// Penalty for each image of a cluster.
        size_penalty: f64,
        /// When images are counted.
        sizes: Sizes,
        /// Steps; `None`: floor(1 / merge_share) - 1, as BUC.
        steps: Option<usize>,
        /// Clusters below which no step goes.
        clusters: usize,
    },
    /// k-means on the features as they are.
    KMeans(KMeans),
    /// A Gaussian mixture on the features as they are.
    Gmm(Gmm),
}

/// Options of the command.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Algorithm; the options from `k1` on are DBSCAN's.
    pub algorithm: Algorithm,
    /// Matrix of features, one row per image (`.npy`, f32 or f64).
    pub features: PathBuf,
    /// Where the labels go (`.npy`, i64, -1 = outlier).
    pub out: PathBuf,
    /// Bottom-up: frame of each image (`.npy`, i64 or i32, -1 = none). Images of one frame are different people, and no
    /// cluster may ever hold two of them.
    pub frames: Option<PathBuf>,
    /// Length of a neighbour list, the image itself included.
    pub k1: usize,
    /// Images averaged in the local query expansion.
    pub k2: usize,
    /// Weights within a neighbourhood.
    pub weights: Weights,
    /// Radius.
    pub eps: f32,
    /// Take the radius from the data instead (see [`rho::eps_from_rho`]).
    pub rho: Option<f64>,
    /// Points that make a core point.
    pub min_samples: usize,
    /// Report other radii too: those of [`sweep::RADII`] or, with `rho`, those of shares around it.
    pub sweep: bool,
    /// Draw the sweep into this file (SVG).
    pub plot: Option<PathBuf>,
}

impl ClusterOptions {
    /// The command's defaults: DBSCAN, k1 30, k2 6, eps 0.6, min_samples 4.
    pub fn new(features: PathBuf, out: PathBuf) -> Self {
        ClusterOptions {
            algorithm: Algorithm::Dbscan,
            features,
            out,
            frames: None,
            k1: 30,
            k2: 6,
            weights: Weights::Softmax,
            eps: 0.6,
            rho: None,
            min_samples: 4,
            sweep: false,
            plot: None,
        }
    }
}

/// One radius and what it gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RadiusReport {
    /// Radius, if the algorithm has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eps: Option<f32>,
    /// Share of the smallest distances that the radius was taken from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rho: Option<f64>,
    /// Clusters found.
    pub clusters: usize,
    /// Images without a cluster.
    pub outliers: usize,
    /// Images of the largest cluster.
    pub largest: usize,
    /// Images of the median cluster.
    pub median: usize,
}

/// What the command did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// Images.
    pub images: usize,
    /// Pairs nearer than Jaccard distance 1, per image, if the algorithm needs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbours_per_image: Option<f64>,
    /// Whether an iteration came to its end, if the algorithm is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converged: Option<bool>,
    /// Pairs of images that were kept apart, if frames were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pairs_apart: Option<usize>,
    /// Result that was written.
    #[serde(flatten)]
    pub result: RadiusReport,
    /// Other radii, if asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sweep: Vec<RadiusReport>,
    /// Wall time of neighbours, distances and clustering, without reading and writing.
    pub seconds: f64,
}

/// What an algorithm found.
struct Found {
    labels: PseudoLabels,
    eps: Option<f32>,
    converged: Option<bool>,
    distances: Option<SparseDistances>,
}

impl From<PseudoLabels> for Found {
    fn from(labels: PseudoLabels) -> Self {
        Found {
            labels,
            eps: None,
            converged: None,
            distances: None,
        }
    }
}

/// Reads the features, clusters them, writes the labels.
///
/// # Errors
/// A file that can't be read or written, features that can't be clustered, or a parameter out of range.
pub fn cluster_file(options: &ClusterOptions) -> Result<ClusterReport, ClusterError> {
    // Parameters first: a typing error must not cost the reading of a large file.
    let jaccard = Jaccard::new(options.k1, options.k2, options.weights)?;
    let dbscan = Dbscan::new(options.eps, options.min_samples)?;
    check(&options.algorithm)?;
    if let (Some(frames), false) = (
        &options.frames,
        matches!(options.algorithm, Algorithm::BottomUp { .. }),
    ) {
        return Err(ClusterError::Parameter {
            key: "frames",
            range: "left out: only bottom-up merging keeps pictures apart",
            value: frames.display().to_string(),
        });
    }
    let matrix = npy::read_matrix(&options.features)?;
    let apart = match &options.frames {
        Some(path) => Some(pairs_of_frames(path, &options.features, matrix.rows())?),
        None => None,
    };
    let pairs_apart = apart.as_ref().map(Pairs::count);
    let forbidden = Forbidden {
        apart: apart.unwrap_or_default(),
        ..Forbidden::default()
    };
    let start = Instant::now();
    let found = match options.algorithm {
        Algorithm::Dbscan => by_density(&matrix, options, &jaccard, dbscan),
        other => by_another(&matrix, &other, &forbidden),
    };
    let found = found.map_err(|e| match e {
        ClusterError::Parameter { .. } => e,
        e => ClusterError::File {
            path: options.features.clone(),
            reason: e.to_string(),
        },
    })?;
    let seconds = start.elapsed().as_secs_f64();
    npy::write_labels(&options.out, &found.labels.to_i64())?;
    let sweep = match &found.distances {
        Some(distances) if options.sweep => {
            sweep::sweep(distances, options.rho, options.min_samples)?
        }
        _ => Vec::new(),
    };
    let result = RadiusReport {
        rho: options.rho.filter(|_| found.eps.is_some()),
        ..summarise(found.eps, &found.labels)
    };
    if let Some(path) = &options.plot {
        sweep::draw(&sweep, &result, path)?;
    }
    Ok(ClusterReport {
        images: matrix.rows(),
        neighbours_per_image: found
            .distances
            .as_ref()
            .map(|d| d.entries() as f64 / matrix.rows() as f64),
        converged: found.converged,
        pairs_apart,
        result,
        sweep,
        seconds,
    })
}

fn check(algorithm: &Algorithm) -> Result<(), ClusterError> {
    match *algorithm {
        Algorithm::Average(stop) => stop.check().map(|_| ()),
        Algorithm::BottomUp {
            merge_share,
            size_penalty,
            sizes,
            ..
        } => {
            // Whether the share is enough for one merge, the number of images will say.
            BottomUp::of_share(usize::MAX >> 32, merge_share, size_penalty, sizes).map(|_| ())
        }
        _ => Ok(()),
    }
}

fn by_density(
    matrix: &Matrix,
    options: &ClusterOptions,
    jaccard: &Jaccard,
    mut dbscan: Dbscan,
) -> Result<Found, ClusterError> {
    let distances = jaccard.distances(&matrix.data, matrix.width)?;
    if let Some(fraction) = options.rho {
        let eps = rho::eps_from_rho(&distances, fraction)?;
        dbscan = Dbscan::new(eps, options.min_samples)?;
    }
    Ok(Found {
        labels: dbscan.cluster(&distances),
        eps: Some(dbscan.eps()),
        converged: None,
        distances: Some(distances),
    })
}

/// Pairs of images of one frame.
fn pairs_of_frames(path: &Path, features: &Path, images: usize) -> Result<Pairs, ClusterError> {
    let frames = npy::read_frames(path)?;
    if frames.len() != images {
        return Err(ClusterError::File {
            path: path.to_path_buf(),
            reason: format!(
                "{} frame numbers for the {images} images of {}; give one per image, -1 for an image of no frame",
                frames.len(),
                features.display()
            ),
        });
    }
    Ok(Pairs::within(&frames))
}

fn by_another(
    matrix: &Matrix,
    algorithm: &Algorithm,
    forbidden: &Forbidden,
) -> Result<Found, ClusterError> {
    let unit = || UnitRows::new(&matrix.data, matrix.width);
    let converged = |labels, converged| Found {
        converged: Some(converged),
        ..Found::from(labels)
    };
    match *algorithm {
        Algorithm::Dbscan => unreachable!("has a function of its own"),
        Algorithm::Average(stop) => {
            let distances = Condensed::of(&FeatureDistances {
                rows: &unit()?,
                metric: Metric::Euclidean,
            })?;
            Ok(average_linkage(distances).cut(stop)?.into())
        }
        Algorithm::BottomUp {
            merge_share,
            size_penalty,
            sizes,
            steps,
            clusters,
        } => {
            let rows = unit()?;
            let distances = FeatureDistances {
                rows: &rows,
                metric: Metric::SquaredEuclidean,
            };
            // Checked as a whole first: a share that merges nothing is an error, not an empty loop.
            BottomUp::of_share(rows.count(), merge_share, size_penalty, sizes)?;
            let merges = (rows.count() as f64 * merge_share) as usize;
            let steps = steps.unwrap_or(((1.0 / merge_share) as usize).saturating_sub(1));
            let mut labels = BottomUp::start(rows.count());
            for _ in 0..steps {
                let merges = merges.min(labels.clusters.saturating_sub(clusters.max(1)));
                if merges == 0 {
                    break;
                }
                let step = BottomUp::new(merges, size_penalty, sizes)?;
                labels = step.step(&distances, &labels, forbidden)?;
            }
            Ok(labels.into())
        }
        Algorithm::KMeans(kmeans) => {
            let fit = kmeans.fit(&matrix.data, matrix.width)?;
            Ok(converged(fit.pseudo_labels(), fit.converged))
        }
        Algorithm::Gmm(gmm) => {
            let fit = gmm.fit(&matrix.data, matrix.width)?;
            Ok(converged(fit.pseudo_labels(), fit.converged))
        }
    }
}

/// What a radius gives.
pub(super) fn report(dbscan: &Dbscan, distances: &SparseDistances) -> RadiusReport {
    summarise(Some(dbscan.eps()), &dbscan.cluster(distances))
}

fn summarise(eps: Option<f32>, found: &PseudoLabels) -> RadiusReport {
    let mut sizes = found.sizes();
    sizes.sort_unstable();
    RadiusReport {
        eps,
        rho: None,
        clusters: found.clusters,
        outliers: found.outliers(),
        largest: sizes.last().copied().unwrap_or(0),
        median: sizes.get(sizes.len() / 2).copied().unwrap_or(0),
    }
}
