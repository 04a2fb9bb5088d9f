#pragma once
// Every kind of link that the contract of Channel is tested over.
//
// Threads: one.
#include <memory>
#include <string>
#include <vector>

#include "shared/transport/channel.h"

namespace memslot {

// A place to bind and to connect to; made anew for every test.
class Link {
 public:
  virtual ~Link() = default;
  // A small byte bound (kLinkBytes) and few inbound messages: tests fill the queues quickly.
  virtual Result<std::unique_ptr<Channel>> bind() = 0;
  // May be called before bind().
  virtual std::unique_ptr<Channel> connect(const std::string& identity) = 0;
};

inline constexpr std::size_t kLinkBytes = std::size_t{16} << 20;

struct LinkCase {
  const char* name;
  std::unique_ptr<Link> (*make)();
};

std::vector<LinkCase> link_cases();

}  // namespace memslot
