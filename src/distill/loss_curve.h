// The picture of a training run: loss, KL and agreement by step, of training and of held-out text.
//
//   SWIFTKV_ASSIGN_OR_RETURN(const std::string warning, DrawLossCurve(folder, metrics));
//
// Leaves in `folder`: loss_curve.tsv (the figures), loss_curve.gp (the script; `gnuplot loss_curve.gp` in the folder
// draws it again), and loss_curve.svg and loss_curve.png where gnuplot is installed.
#ifndef SWIFTKV_DISTILL_LOSS_CURVE_H_
#define SWIFTKV_DISTILL_LOSS_CURVE_H_

#include <string>

#include "base/status.h"
#include "distill/metrics.h"

namespace swiftkv {

inline constexpr char kLossCurveSvg[] = "loss_curve.svg";
inline constexpr char kLossCurvePng[] = "loss_curve.png";
inline constexpr int64_t kMaxPictureBytes = 64 << 20;

// A sentence where there is no picture (gnuplot is missing, or failed); empty where there is one. The files that were
// there before are replaced. Error kIo: the script or the figures can't be written.
Result<std::string> DrawLossCurve(const std::string& folder, const Metrics& metrics);

// The two files' contents. A long run's steps are averaged to at most kMaxCurvePoints points.
inline constexpr int64_t kMaxCurvePoints = 1000;
std::string LossCurveData(const Metrics& metrics);
std::string LossCurveScript(const Metrics& metrics);

}  // namespace swiftkv

#endif  // SWIFTKV_DISTILL_LOSS_CURVE_H_
