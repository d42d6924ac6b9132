#include "engine/memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace swiftkv {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kGib = int64_t{1} << 30;

class CgroupTest : public testing::Test {
 protected:
  CgroupTest() : root_(testing::TempDir() + "swiftkv_cgroup_" + std::to_string(getpid())) {}
  ~CgroupTest() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) const {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  void Limit(const std::string& cgroup, int64_t max, int64_t current) const {
    Write("/sys/fs/cgroup" + cgroup + "/memory.max", std::to_string(max));
    Write("/sys/fs/cgroup" + cgroup + "/memory.current", std::to_string(current));
  }
  MemoryInfo Limited() const {
    MemoryInfo info{.total_bytes = 64 * kGib, .available_bytes = 32 * kGib};
    LimitByCgroups(root_, &info);
    return info;
  }
  const std::string root_;
};

TEST_F(CgroupTest, NoLimitChangesNothing) {
  EXPECT_EQ(Limited().available_bytes, 32 * kGib);
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/a/memory.max", "1\n");  // of somebody else
  Write("/sys/fs/cgroup/memory.max", "max\n");
  EXPECT_EQ(Limited().total_bytes, 64 * kGib);
  EXPECT_EQ(Limited().available_bytes, 32 * kGib);
}

// A container that has read big weights holds their pages, and they go when something needs the place.
TEST_F(CgroupTest, PagesOfFilesAreAvailable) {
  Write("/proc/self/cgroup", "0::/\n");
  Limit("", 8 * kGib, 7 * kGib);
  Write("/sys/fs/cgroup/memory.stat", "anon 1073741824\ninactive_file 4294967296\nactive_file 1073741824\n");
  EXPECT_EQ(Limited().total_bytes, 8 * kGib);
  EXPECT_EQ(Limited().available_bytes, 6 * kGib);
}

TEST_F(CgroupTest, EveryCgroupOnTheWayUpCounts) {
  Write("/proc/self/cgroup", "0::/system.slice/swiftkv.service\n");
  Limit("/system.slice", 8 * kGib, 7 * kGib);
  Limit("/system.slice/swiftkv.service", 4 * kGib, 0);
  EXPECT_EQ(Limited().total_bytes, 4 * kGib);
  EXPECT_EQ(Limited().available_bytes, 1 * kGib);
}

TEST_F(CgroupTest, Version1) {
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/a\n4:hugetlb,memory:/a/b\n0::/\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  Write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000");
  Write("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", std::to_string(2 * kGib));
  Write("/sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", std::to_string(2 * kGib));
  Write("/sys/fs/cgroup/memory/a/b/memory.stat", "total_inactive_file 1073741824\ninactive_file 1\n");
  EXPECT_EQ(Limited().total_bytes, 2 * kGib);
  EXPECT_EQ(Limited().available_bytes, 1 * kGib);
}

}  // namespace
}  // namespace swiftkv
