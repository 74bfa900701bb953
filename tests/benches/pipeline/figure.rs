//! A figure: what was measured, what it is held against, and what it is to reach.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use crate::statistics::median;

/// What a figure is to reach.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// Of the ratio to what it is held against.
    RatioAtLeast(f64),
    /// Of the ratio to what it is held against.
    RatioAtMost(f64),
    /// Of the figure itself.
    AtLeast(f64),
    /// Of the figure itself.
    AtMost(f64),
}

/// What a figure is held against.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// The figure as a share of it: a median of the rounds, if there are several.
    pub(crate) ratio: f64,
}

/// What a measurement was repeated with: a rate, a number of connections, a kind of client service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// What differs from one point to the next.
    pub(crate) axis: String,
    pub(crate) label: String,
    /// Its place on a curve, if the points make one.
    pub(crate) x: Option<f64>,
}

impl Point {
    /// A point of a curve.
    pub(crate) fn on_curve(axis: &str, x: impl Into<f64> + Display) -> Self {
        Self {
            axis: axis.to_owned(),
            label: x.to_string(),
            x: Some(x.into()),
        }
    }

    /// One of several kinds.
    pub(crate) fn kind(axis: &str, label: &str) -> Self {
        Self {
            axis: axis.to_owned(),
            label: label.to_owned(),
            x: None,
        }
    }
}

/// Something measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) measurement: String,
    pub(crate) name: String,
    pub(crate) point: Option<Point>,
    pub(crate) value: f64,
    pub(crate) unit: String,
    pub(crate) beside: Option<Reference>,
    pub(crate) goal: Option<Goal>,
    /// How far the rounds lie from the value, as a share of it; 0 if there was one round.
    pub(crate) spread: f64,
}

impl Figure {
    pub(crate) fn new(
        measurement: &str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) -> Self {
        Self {
            measurement: measurement.to_owned(),
            name: name.into(),
            point: None,
            value,
            unit: unit.to_owned(),
            beside: None,
            goal: None,
            spread: 0.0,
        }
    }

    /// The median of several rounds.
    pub(crate) fn of_rounds(
        measurement: &str,
        name: impl Into<String>,
        rounds: impl Iterator<Item = f64> + Clone,
        unit: &'static str,
    ) -> Self {
        let value = median(rounds.clone());
        let spread = rounds.map(|round| (round / value - 1.0).abs());
        Self {
            spread: spread.fold(0.0, f64::max),
            ..Self::new(measurement, name, value, unit)
        }
    }

    pub(crate) fn at(mut self, point: &Point) -> Self {
        self.point = Some(point.clone());
        self
    }

    /// Holds it against something of the same unit.
    pub(crate) fn beside(mut self, name: &str, value: f64) -> Self {
        self.beside = Some(Reference {
            name: name.to_owned(),
            value,
            ratio: self.value / value,
        });
        self
    }

    /// Puts the median of the ratios of several rounds in place of the ratio of the medians.
    pub(crate) fn with_ratio(mut self, ratio: f64) -> Self {
        if let Some(beside) = &mut self.beside {
            beside.ratio = ratio;
        }
        self
    }

    pub(crate) fn at_least(mut self, ratio: f64) -> Self {
        self.goal = Some(Goal::RatioAtLeast(ratio));
        self
    }

    pub(crate) fn at_most(mut self, ratio: f64) -> Self {
        self.goal = Some(Goal::RatioAtMost(ratio));
        self
    }

    pub(crate) fn no_less_than(mut self, value: f64) -> Self {
        self.goal = Some(Goal::AtLeast(value));
        self
    }

    pub(crate) fn limit(mut self, value: f64) -> Self {
        self.goal = Some(Goal::AtMost(value));
        self
    }

    /// Whether the goal is reached, where there is one.
    pub(crate) fn reached(&self) -> Option<bool> {
        let ratio = self.beside.as_ref().map_or(f64::NAN, |beside| beside.ratio);
        Some(match self.goal? {
            Goal::RatioAtLeast(goal) => ratio >= goal,
            Goal::RatioAtMost(goal) => ratio <= goal,
            Goal::AtLeast(goal) => self.value >= goal,
            Goal::AtMost(goal) => self.value <= goal,
        })
    }

    /// Whether it is about the same as the other.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let key = |figure: &Self| {
            let beside = figure.beside.as_ref().map(|beside| beside.name.clone());
            let names = (figure.measurement.clone(), figure.name.clone());
            (names, figure.point.clone(), beside)
        };
        key(self) == key(other)
    }
}
