// What the source and the sink of Kafka have in common: how the client is set up. The client is librdkafka; its header is not
// needed to include ours.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"

namespace tidemill {

/// Settings of librdkafka by their names there: `{{"security.protocol", "ssl"}, {"ssl.ca.location", "ca.pem"}}`. A later one
/// replaces an earlier one of the same name.
using KafkaSettings = std::vector<std::pair<std::string, std::string>>;

/// What a broker accepts instead of a password.
struct KafkaToken {
  std::string value;
  Time expires;
  std::string principal;
  std::vector<std::pair<std::string, std::string>> extensions = {};  ///< of SASL
};

/// Called for the first token and whenever one is about to expire, with the value of the setting sasl.oauthbearer.config.
/// What it throws is reported, and it is called again later.
/// Threads: one of the library's own, one call at a time.
using KafkaTokenSource = std::function<KafkaToken(std::string_view config)>;

/// Which records of transactions are read.
enum class KafkaIsolation {
  read_committed,    ///< those of transactions that were committed
  read_uncommitted,  ///< all, also those that are withdrawn later
};

}  // namespace tidemill
