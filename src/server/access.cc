#include "server/access.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <boost/beast/core/string.hpp>
#include <optional>

namespace swiftkv {
namespace {

// The password of "user:password" in base64.
std::optional<std::string> BasicPassword(std::string_view encoded) {
  std::string text(encoded.size(), '\0');
  const int size =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                      reinterpret_cast<const unsigned char*>(encoded.data()), static_cast<int>(encoded.size()));
  // The padding counts as bytes there.
  const int padding = (encoded.ends_with('=') ? 1 : 0) + (encoded.ends_with("==") ? 1 : 0);
  if (size < padding) return std::nullopt;
  text.resize(static_cast<size_t>(size - padding));
  const size_t colon = text.find(':');
  if (colon == std::string::npos) return std::nullopt;
  return text.substr(colon + 1);
}

std::optional<std::string> KeyOf(const HttpRequest& request) {
  const std::string_view value = request.Header("Authorization");
  const size_t space = value.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const std::string_view scheme = value.substr(0, space);
  const std::string_view rest = value.substr(space + 1);
  if (boost::beast::iequals(scheme, "Bearer")) return std::string(rest);
  if (boost::beast::iequals(scheme, "Basic")) return BasicPassword(rest);
  return std::nullopt;
}

// "chat.example" of "chat.example:8000", "::1" of "[::1]:8000".
std::string_view WithoutPort(std::string_view host) {
  if (host.starts_with('[')) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.find(':'));
}

}  // namespace

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) digests_.push_back(Hash(key));
}

ApiKeys::Digest ApiKeys::Hash(std::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

bool ApiKeys::Allows(const HttpRequest& request) const {
  if (digests_.empty()) return true;
  const std::optional<std::string> key = KeyOf(request);
  const Digest digest = Hash(key.value_or(""));
  bool found = false;
  for (const Digest& allowed : digests_) found |= CRYPTO_memcmp(digest.data(), allowed.data(), digest.size()) == 0;
  return found && key.has_value();
}

bool IsRebound(const HttpRequest& request, const std::string& own_host,
               const std::vector<std::string>& allowed_origins) {
  using boost::beast::iequals;
  const bool from_browser = !request.Header("Origin").empty() || request.Header("User-Agent").starts_with("Mozilla/");
  const std::string_view host = request.Header("Host");
  if (!from_browser || host.empty()) return false;
  std::string_view name = WithoutPort(host);
  boost::system::error_code error;
  boost::asio::ip::make_address(std::string(name), error);
  if (!error) return false;
  if (name.ends_with('.')) name.remove_suffix(1);
  constexpr std::string_view kLocal = ".localhost";
  const bool below_local = name.size() > kLocal.size() && iequals(name.substr(name.size() - kLocal.size()), kLocal);
  if (below_local || iequals(name, "localhost") || iequals(name, own_host)) return false;
  return std::none_of(allowed_origins.begin(), allowed_origins.end(), [&](std::string_view origin) {
    const size_t scheme = origin.find("://");
    return origin == "*" || (scheme != origin.npos && iequals(WithoutPort(origin.substr(scheme + 3)), name));
  });
}

std::vector<HttpHeader> CorsHeaders(const std::vector<std::string>& allowed_origins, const HttpRequest& request) {
  const std::string_view origin = request.Header("Origin");
  const bool allowed =
      !origin.empty() && std::any_of(allowed_origins.begin(), allowed_origins.end(),
                                     [&](const std::string& entry) { return entry == "*" || entry == origin; });
  if (!allowed) return {};
  std::vector<HttpHeader> headers = {{"Access-Control-Allow-Origin", std::string(origin)},
                                     {"Vary", "Origin"},
                                     {"Access-Control-Expose-Headers", "x-request-id"}};
  if (request.method == "OPTIONS") {
    headers.push_back({"Access-Control-Allow-Methods", "GET, POST"});
    // Clients add headers of their own (OpenAI's x-stainless-*), and none means anything to us beside these.
    const std::string_view asked = request.Header("Access-Control-Request-Headers");
    headers.push_back({"Access-Control-Allow-Headers",
                       asked.empty() ? "authorization, content-type, x-request-id" : std::string(asked)});
    headers.push_back({"Access-Control-Max-Age", "600"});
  }
  return headers;
}

}  // namespace swiftkv
