// Follows the visitors of a web site. Lines of "<visitor> <page>" come from a server; a visit ends with the page "logout", or
// when the visitor has not been seen for two seconds. Each visit that ends is printed.
//     session_tracking HOST PORT
#include <cstdint>
#include <exception>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>

#include <tidemill/tidemill.hpp>

using namespace std::chrono_literals;

// [session]
// What is known of a visit that goes on.
struct Visit {
  long pages = 0;
  std::string last_page;
};

// A visit that has ended.
struct Report {
  std::string visitor;
  long pages = 0;
  std::string last_page;
  bool logged_out = false;
};

// Called for every page that a visitor looks at, and once more when there was none for too long.
std::optional<Report> track(std::string_view visitor, std::optional<std::string_view> page,
                            tidemill::State<Visit>& visit) {
  if (visit.is_timing_out()) {  // the state goes when this returns
    return Report{std::string{visitor}, visit.get().pages, visit.get().last_page, false};
  }
  if (*page == "logout") {
    if (!visit.exists()) return std::nullopt;
    Report report{std::string{visitor}, visit.get().pages, visit.get().last_page, true};
    visit.remove();
    return report;
  }
  if (!visit.exists()) visit.update({});
  Visit& now = visit.edit();
  ++now.pages;
  now.last_page = *page;
  return std::nullopt;
}
// [/session]

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "session_tracking needs HOST PORT\n";
    return 2;
  }
  try {
    tidemill::Context context{{.app_name = "session-tracking", .parallelism = 2}};
    tidemill::StreamingContext ssc{context, 100ms};

    // [stream]
    auto pages =
        ssc.socket_text_stream(argv[1], static_cast<std::uint16_t>(std::stoi(argv[2]))).map([](std::string_view line) {
          const std::size_t space = std::min(line.find(' '), line.size());
          return std::pair{line.substr(0, space), line.substr(std::min(space + 1, line.size()))};
        });
    auto visits = pages.map_with_state(tidemill::state_spec<Visit>(track).timeout(2s));
    visits.foreach_batch([open = visits.state()](const tidemill::Batch<Report>& ended) {
      for (const Report& report : ended.collect()) {
        std::cout << report.visitor << ": " << report.pages << " pages, the last one " << report.last_page
                  << (report.logged_out ? ", logged out" : ", gone") << std::endl;
      }
      if (ended.count() != 0 && open.size() == 0) std::cout << "nobody is here" << std::endl;
    });
    // [/stream]

    ssc.start();
    ssc.await_termination();
  } catch (const std::exception& error) {
    std::cerr << "session_tracking: " << error.what() << '\n';
    return 1;
  }
}
