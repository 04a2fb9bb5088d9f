#pragma once
// How the backend's threads (an OpenMP team for each thread that computes) share the machine.
//
// Between two parallel regions a team's threads spin, then sleep. GCC's runtime spins for
// milliseconds: on a machine with other work, or in a container with a share of the processors,
// each region then waits for threads that spend their time slices on spinning. Measured on two
// cores at a load of 12: 2.7 tokens/s at 10,000 spins, 11 at 2,000, 35 at 300; alone on the machine
// 2,000 are as good as the default 300,000, and none at all costs a third of decoding's speed.
//
// As soon as there are more threads in teams than cores, the runtime hardly spins at all (decoding
// fell from 170 to 75 tokens/s once a second thread had learned), so every thread but the compute
// thread gives its team back when it is done for a while.

namespace memslot {

// Call first in main(): bounds the spinning, unless OMP_WAIT_POLICY or GOMP_SPINCOUNT say
// otherwise. The runtime reads its settings when it is loaded, so the program starts anew once,
// under the same process id. On failure it goes on as it is.
void bound_thread_spinning(char** argv);

// The calling thread's next parallel region makes a team again (about 0.1 ms). No-op inside a
// region. Threads: concerns the calling thread only.
void release_thread_team();

}  // namespace memslot
