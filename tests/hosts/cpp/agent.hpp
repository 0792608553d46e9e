// An agent of the example, as a process of its own: reads one message on stdin, then speaks JSON lines with its host.
//
// It knows nothing of QM2 but its envelope: it asks its host before each write, and reports at the end. It ends when its host does.
#pragma once

int run_agent();
