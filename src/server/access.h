// Who may use the server: API keys, and web pages from other origins.
#ifndef SWIFTKV_SERVER_ACCESS_H_
#define SWIFTKV_SERVER_ACCESS_H_

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "server/http.h"

namespace swiftkv {

// Compares digests of equal length without an early end, so that the time says nothing about how much of a guess is
// right. The key comes as `Authorization: Bearer KEY`, or, from a browser's own dialogue, as the password of `Basic`.
class ApiKeys {
 public:
  explicit ApiKeys(const std::vector<std::string>& keys);
  bool Allows(const HttpRequest& request) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  static Digest Hash(std::string_view key);
  std::vector<Digest> digests_;
};

// Whether the `Host` of a request is a name of this machine's own: a server that only this machine can reach is reached
// by a web page of another origin through a name of that page's that leads to 127.0.0.1 (DNS rebinding), and the
// browser then says so. True without a Host, which every browser sends; for addresses, localhost, what is below it and
// `own_host`; and for the hosts of `allowed_origins`.
bool IsOwnHost(std::string_view host, const std::string& own_host, const std::vector<std::string>& allowed_origins);

// The headers that let a web page of an allowed origin read the answer; none for others.
std::vector<HttpHeader> CorsHeaders(const std::vector<std::string>& allowed_origins, const HttpRequest& request);

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_ACCESS_H_
