//! The arguments of `reid-train cluster`, and what it prints.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use reid_train::clustering::command::{Algorithm, ClusterOptions, cluster_file};
use reid_train::clustering::{Covariance, EmptyCluster, Gmm, KMeans, Sizes, Stop};
use reid_train::config::usage;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// k-reciprocal Jaccard distance (Zhong et al. 2017), DBSCAN (Ester et al. 1996)
    Dbscan,
    /// Agglomerative, average linkage of Euclidean distances of unit vectors (HCT, Zeng et al. 2020)
    Average,
    /// Bottom-up merging with a size penalty (BUC, Lin et al. 2019), squared distances of unit vectors
    BottomUp,
    /// k-means from k-means++ centres (Arthur and Vassilvitskii 2007), features as they are
    Kmeans,
    /// Gaussian mixture by expectation-maximisation, features as they are
    Gmm,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CovarianceArg {
    /// A variance for each column
    Diag,
    /// A matrix
    Full,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EmptyArg {
    /// Its centre stays where it is
    Keep,
    /// It takes the picture farthest from its centre
    Relocate,
}

#[derive(Args)]
pub struct ClusterArgs {
    /// Features (.npy, one row per picture).
    #[arg(long)]
    features: PathBuf,
    /// Labels to write (.npy, i64, -1 = outlier).
    #[arg(long)]
    out: PathBuf,
    /// How features become clusters.
    #[arg(long, value_enum, default_value_t = Kind::Dbscan)]
    algorithm: Kind,

    /// Neighbours of the reciprocal sets, self included [default: 30].
    #[arg(long, help_heading = "dbscan")]
    k1: Option<usize>,
    /// Neighbours of the local query expansion [default: 6].
    #[arg(long, help_heading = "dbscan")]
    k2: Option<usize>,
    /// DBSCAN radius in Jaccard distance [default: 0.6].
    #[arg(long, help_heading = "dbscan")]
    eps: Option<f32>,
    /// Take the radius from the data: the mean of this share of the smallest non-zero distances.
    #[arg(long, help_heading = "dbscan")]
    rho: Option<f64>,
    /// Pictures, self included, that make a core picture [default: 4].
    #[arg(long, help_heading = "dbscan")]
    min_samples: Option<usize>,
    /// Report other radii too; with --rho those of other shares.
    #[arg(long, help_heading = "dbscan")]
    sweep: bool,
    /// Draw clusters and outliers of the sweep into this file (SVG).
    #[arg(long, value_name = "FILE", help_heading = "dbscan", requires = "sweep")]
    plot: Option<PathBuf>,

    /// Clusters: when average and bottom-up stop, how many centres k-means has, how many components a mixture.
    #[arg(long, help_heading = "average, bottom-up, kmeans, gmm")]
    clusters: Option<usize>,
    /// Seed of the starting centres [default: 1].
    #[arg(long, help_heading = "kmeans, gmm")]
    seed: Option<u64>,
    /// Updates at most [default: 300 for kmeans, 100 for gmm].
    #[arg(long, help_heading = "kmeans, gmm")]
    max_iterations: Option<usize>,
    /// Stop when the mean distance of the next two clusters exceeds this (0 to 2), in place of --clusters.
    #[arg(long, help_heading = "average", conflicts_with = "clusters")]
    threshold: Option<f32>,
    /// Share of the pictures that a step merges, mp of the papers [default: 0.05].
    #[arg(long, help_heading = "bottom-up")]
    merge_share: Option<f64>,
    /// Penalty for each picture of a cluster, lambda of the papers [default: 0.003].
    #[arg(long, help_heading = "bottom-up")]
    size_penalty: Option<f64>,
    /// Count a cluster's pictures anew after every merge, not only at the start of a step.
    #[arg(long, help_heading = "bottom-up")]
    grown_sizes: bool,
    /// Steps [default: floor(1 / merge-share) - 1].
    #[arg(long, help_heading = "bottom-up")]
    steps: Option<usize>,
    /// Frame of each picture (.npy, integers, -1 = none): pictures of one frame are different people, and no cluster holds two
    /// of them. A number stands for one frame of one camera: frames of different cameras need different numbers.
    #[arg(long, value_name = "FILE", help_heading = "bottom-up")]
    frames: Option<PathBuf>,
    /// Starts, of which the best is kept [default: 1].
    #[arg(long, help_heading = "kmeans")]
    restarts: Option<usize>,
    /// What becomes of a centre without a picture [default: relocate].
    #[arg(long, value_enum, help_heading = "kmeans")]
    empty: Option<EmptyArg>,
    /// Form of the covariances [default: full].
    #[arg(long, value_enum, help_heading = "gmm")]
    covariance: Option<CovarianceArg>,
    /// Added to every variance [default: 1e-6].
    #[arg(long, help_heading = "gmm")]
    reg_covar: Option<f64>,
}

impl ClusterArgs {
    /// A parameter of another algorithm would be ignored in silence.
    fn check(&self) -> Result<()> {
        use Kind::{Average, BottomUp, Dbscan, Gmm, Kmeans};
        let given: [(bool, &str, &[Kind]); 19] = [
            (self.k1.is_some(), "k1", &[Dbscan]),
            (self.k2.is_some(), "k2", &[Dbscan]),
            (self.eps.is_some(), "eps", &[Dbscan]),
            (self.rho.is_some(), "rho", &[Dbscan]),
            (self.min_samples.is_some(), "min-samples", &[Dbscan]),
            (self.sweep, "sweep", &[Dbscan]),
            (
                self.clusters.is_some(),
                "clusters",
                &[Average, BottomUp, Kmeans, Gmm],
            ),
            (self.seed.is_some(), "seed", &[Kmeans, Gmm]),
            (
                self.max_iterations.is_some(),
                "max-iterations",
                &[Kmeans, Gmm],
            ),
            (self.threshold.is_some(), "threshold", &[Average]),
            (self.merge_share.is_some(), "merge-share", &[BottomUp]),
            (self.size_penalty.is_some(), "size-penalty", &[BottomUp]),
            (self.grown_sizes, "grown-sizes", &[BottomUp]),
            (self.steps.is_some(), "steps", &[BottomUp]),
            (self.frames.is_some(), "frames", &[BottomUp]),
            (self.restarts.is_some(), "restarts", &[Kmeans]),
            (self.empty.is_some(), "empty", &[Kmeans]),
            (self.covariance.is_some(), "covariance", &[Gmm]),
            (self.reg_covar.is_some(), "reg-covar", &[Gmm]),
        ];
        let name = |kind: &Kind| {
            kind.to_possible_value()
                .map_or_else(String::new, |v| v.get_name().to_owned())
        };
        for (given, flag, kinds) in given {
            if given && !kinds.contains(&self.algorithm) {
                let known: Vec<String> = kinds.iter().map(name).collect();
                return Err(usage(format!(
                    "--{flag} belongs to --algorithm {}, not to {}",
                    known.join(" or "),
                    name(&self.algorithm)
                )));
            }
        }
        Ok(())
    }

    fn needed_clusters(&self) -> Result<usize> {
        self.clusters
            .ok_or_else(|| usage("--clusters N is needed: how many clusters to make"))
    }

    fn algorithm(&self) -> Result<Algorithm> {
        self.check()?;
        let seed = self.seed.unwrap_or(1);
        Ok(match self.algorithm {
            Kind::Dbscan => Algorithm::Dbscan,
            Kind::Average => Algorithm::Average(match self.threshold {
                Some(threshold) => Stop::Threshold(threshold),
                None => Stop::Clusters(self.needed_clusters()?),
            }),
            Kind::BottomUp => Algorithm::BottomUp {
                merge_share: self.merge_share.unwrap_or(0.05),
                size_penalty: self.size_penalty.unwrap_or(0.003),
                sizes: if self.grown_sizes {
                    Sizes::Grown
                } else {
                    Sizes::Fixed
                },
                steps: self.steps,
                clusters: self.clusters.unwrap_or(1),
            },
            Kind::Kmeans => Algorithm::KMeans(
                KMeans::new(self.needed_clusters()?, seed)?
                    .max_iterations(self.max_iterations.unwrap_or(300))
                    .restarts(self.restarts.unwrap_or(1))
                    .empty(match self.empty {
                        Some(EmptyArg::Keep) => EmptyCluster::Keep,
                        Some(EmptyArg::Relocate) | None => EmptyCluster::Relocate,
                    }),
            ),
            Kind::Gmm => {
                let covariance = match self.covariance {
                    Some(CovarianceArg::Diag) => Covariance::Diagonal,
                    Some(CovarianceArg::Full) | None => Covariance::Full,
                };
                Algorithm::Gmm(
                    Gmm::new(self.needed_clusters()?, covariance, seed)?
                        .max_iterations(self.max_iterations.unwrap_or(100))
                        .reg_covar(self.reg_covar.unwrap_or(1e-6))?,
                )
            }
        })
    }
}

/// Clusters and prints the outcome.
pub fn run(args: &ClusterArgs, json: bool) -> Result<()> {
    let defaults = ClusterOptions::new(args.features.clone(), args.out.clone());
    let options = ClusterOptions {
        algorithm: args.algorithm()?,
        k1: args.k1.unwrap_or(defaults.k1),
        k2: args.k2.unwrap_or(defaults.k2),
        eps: args.eps.unwrap_or(defaults.eps),
        rho: args.rho,
        min_samples: args.min_samples.unwrap_or(defaults.min_samples),
        sweep: args.sweep,
        plot: args.plot.clone(),
        frames: args.frames.clone(),
        ..defaults
    };
    let report = cluster_file(&options)?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    let neighbours = report
        .neighbours_per_image
        .map_or_else(String::new, |n| format!("{n:.1} neighbours each, "));
    println!(
        "{} pictures, {neighbours}{:.1} s",
        report.images, report.seconds
    );
    if report.converged == Some(false) {
        println!("not converged: --max-iterations allows more updates");
    }
    if let Some(pairs) = report.pairs_apart {
        println!("{pairs} pairs of one frame kept apart");
    }
    for row in std::iter::once(&report.result).chain(&report.sweep) {
        let rho = row.rho.map(|rho| format!("rho {rho:.2e}, "));
        let eps = row.eps.map(|eps| format!("eps {eps:.3}: "));
        let radius = rho.unwrap_or_default() + &eps.unwrap_or_default();
        println!(
            "{radius}{} clusters, {} outliers, largest {}, median {}",
            row.clusters, row.outliers, row.largest, row.median
        );
    }
    Ok(())
}
