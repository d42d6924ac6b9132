#include <gtest/gtest.h>
#include <stdlib.h>

#include "kernels/ops.h"

namespace swiftkv::kernels {
namespace {

class BackendChoiceTest : public testing::Test {
 protected:
  void TearDown() override { unsetenv("SWIFTKV_ISA"); }
};

TEST_F(BackendChoiceTest, RefIsFirstAndTheDefaultIsAvailable) {
  ASSERT_FALSE(AvailableBackends().empty());
  EXPECT_EQ(AvailableBackends().front(), &RefBackend());
  bool found = false;
  for (const Backend* backend : AvailableBackends()) found |= backend == &DefaultBackend();
  EXPECT_TRUE(found);
}

TEST_F(BackendChoiceTest, AcceptsEveryAvailableNameAndNamesThemOtherwise) {
  for (const Backend* backend : AvailableBackends()) {
    setenv("SWIFTKV_ISA", std::string(backend->name()).c_str(), 1);
    EXPECT_TRUE(CheckBackendChoice().has_value()) << backend->name();
  }
  setenv("SWIFTKV_ISA", "", 1);
  EXPECT_TRUE(CheckBackendChoice().has_value());
  setenv("SWIFTKV_ISA", "avx9000", 1);
  const Status status = CheckBackendChoice();
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidInput);
  EXPECT_NE(status.error().message.find("avx9000"), std::string::npos);
  EXPECT_NE(status.error().message.find("ref"), std::string::npos);
}

}  // namespace
}  // namespace swiftkv::kernels
