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

// Whether a web page of another origin sent the request to a server that only this machine can reach, through a name of
// the page's own that leads to 127.0.0.1 (DNS rebinding): a browser then says that name as `Host`. Not so where Host is
// an address, localhost or a name below it, `own_host` or the host of one of `allowed_origins`. Programs, which send
// neither an `Origin` nor a browser's `User-Agent`, may say any.
bool IsRebound(const HttpRequest& request, const std::string& own_host,
               const std::vector<std::string>& allowed_origins);

// The headers that let a web page of an allowed origin read the answer; none for others.
std::vector<HttpHeader> CorsHeaders(const std::vector<std::string>& allowed_origins, const HttpRequest& request);

}  // namespace swiftkv

#endif  // SWIFTKV_SERVER_ACCESS_H_
