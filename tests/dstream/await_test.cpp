// Waiting for the end as Asio does: callbacks, futures, coroutines; and the host's executor at work. SEMANTICS C18, L14.
#include <future>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>

#include "engine/harness.hpp"
#include "tidemill/asio.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;
namespace asio = boost::asio;

struct Failing {
  Rig rig;
  explicit Failing(bool fails) {
    rig.ssc.queue_stream(std::make_shared<BatchQueue<int>>()).foreach_batch([fails](const auto&) {
      if (fails) throw std::runtime_error{"boom"};
    });
    rig.ssc.start(Drive::by_host);
  }
};

TEST(AsyncAwait, CallsBackOnTheHandlersExecutorOnceTheContextHasStopped) {
  Failing stream{false};
  asio::io_context io;
  std::vector<bool> failed;
  stream.rig.ssc.async_await_termination(
      asio::bind_executor(io, [&](std::exception_ptr error) { failed.push_back(error != nullptr); }));
  EXPECT_EQ(io.poll(), 0u);
  EXPECT_FALSE(io.stopped()) << "the operation is work of the host's executor";
  stream.rig.ssc.stop();
  EXPECT_THAT(failed, IsEmpty()) << "handlers run where they belong";
  io.run();
  EXPECT_THAT(failed, ElementsAre(false));
}

TEST(AsyncAwait, GivesAFuture) {
  Failing good{false};
  std::future<void> end = good.rig.ssc.async_await_termination(asio::use_future);
  good.rig.ssc.stop();
  EXPECT_NO_THROW(end.get());
  Failing bad{true};
  end = bad.rig.ssc.async_await_termination(asio::use_future);
  bad.rig.pass(1s);
  EXPECT_THROW(end.get(), UserCodeError);
}

TEST(AsyncAwait, IsAwaitedByCoroutines) {
  Failing stream{true};
  asio::io_context io;
  std::string outcome;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        try {
          co_await stream.rig.ssc.async_await_termination(asio::use_awaitable);
          outcome = "stopped";
        } catch (const UserCodeError& error) {
          outcome = error.what();
        }
      },
      asio::detached);
  io.poll();
  EXPECT_EQ(outcome, "");
  stream.rig.pass(1s);
  io.run();
  EXPECT_THAT(outcome, HasSubstr("boom"));
}

TEST(AsyncAwait, EndsWhenTheContextGoes) {
  asio::io_context io;
  int called = 0;
  {
    Failing stream{false};
    stream.rig.ssc.async_await_termination(asio::bind_executor(io, [&](std::exception_ptr) { ++called; }));
  }
  io.run();
  EXPECT_EQ(called, 1);
}

TEST(AsioExecutor, WorksOnTheBatchesOfAHost) {
  asio::io_context io;
  const Context context{{.app_name = "hosted",
                         .parallelism = 0,
                         .executor = asio_executor(io, 3),
                         .clock = std::make_shared<ManualClock>(),
                         .log = nullptr}};
  StreamingContext ssc{context, 1s};
  const auto queue = std::make_shared<BatchQueue<int>>();
  const auto sums = record(ssc.queue_stream(queue)
                               .map([](int i) {
                                 return std::pair{i % 2, 1L};
                               })
                               .reduce_by_key(std::plus<>{}));
  ssc.start(Drive::by_host);
  queue->push(std::vector<int>(100000, 1));
  static_cast<ManualClock&>(context.clock()).advance(1s);
  EXPECT_TRUE(ssc.step()) << "nobody runs the io_context: the batch is slower, and done";
  ASSERT_EQ(sums->size(), 1u);
  EXPECT_THAT(sums->all()[0].records, ElementsAre(std::pair{1, 100000L}));
  ssc.stop();
  io.run();
}

}  // namespace
}  // namespace tidemill
